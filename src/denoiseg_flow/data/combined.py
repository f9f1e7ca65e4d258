"""Combined datasets: trained on images of several datasets, tested on those of the first.

Gondara (2016) trains a denoising autoencoder on combined modalities, and on decreasing numbers of
images. The images of the first dataset keep their names, and so their split and their noise. Those
of the others are for training only, and are named ``{dataset}_{image}``.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from denoiseg_flow.data import splitting
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import checksums


def parts(datasets: Mapping[str, Mapping[str, Any]], name: str) -> list[str]:
    """Return the names of the parts of a combined dataset, or of the dataset itself.

    Parameters
    ----------
    datasets
        Section ``datasets`` of the config.
    name
        One of its keys.

    Raises
    ------
    InputError
        If ``of`` names a single dataset without ``n_train``, the same dataset twice, one that is
        not defined, or one that is combined itself.
    """
    if datasets[name]["source"] != "combine":
        return [name]
    key, of = f"(config key datasets.{name}.of)", list(datasets[name]["of"])
    if len(of) < 2 and (not of or datasets[name].get("n_train") is None):
        raise InputError(
            f"a combined dataset needs at least two others, or one and 'n_train', not {len(of)} "
            f"{key}"
        )
    for part in of:
        if part not in datasets:
            others = ", ".join(other for other in datasets if other != name)
            raise InputError(f"unknown dataset {part!r}; available: {others} {key}")
        if datasets[part]["source"] == "combine":
            raise InputError(f"dataset {part} is combined itself; name its parts instead {key}")
        if of.count(part) > 1:
            raise InputError(f"dataset {part} is named more than once; name it once {key}")
    return of


def link_parts(
    names: Sequence[str], prepared: Sequence[str | Path], folder: str | Path
) -> pd.DataFrame:
    """Link the files of prepared datasets into one folder.

    Parameters
    ----------
    names
        Names of the datasets; the images of the first keep their names.
    prepared
        Their prepared folders, in the same order.
    folder
        Folder to fill, with the subfolders of prepared data. Files become hard links, or copies
        where the file system does not support them.

    Returns
    -------
    pandas.DataFrame
        The manifest of the combined dataset.

    Raises
    ------
    InputError
        If two images would have the same name, or a file is damaged.
    """
    tables = []
    new = PreparedData(Path(folder))
    for place, (name, path) in enumerate(zip(names, prepared, strict=True)):
        part = PreparedData(Path(path))
        table = part.read_manifest()
        prefix = f"{name}_" if place else ""
        for row in table.itertuples():
            old_name, new_name = row.image, f"{prefix}{row.image}"
            for exists, source, target in (
                (True, part.image(old_name), new.image(new_name)),
                (row.annotated, part.mask(old_name), new.mask(new_name)),
                (row.clean, part.clean(old_name), new.clean(new_name)),
                (part.repeats(old_name).exists(), part.repeats(old_name), new.repeats(new_name)),
            ):
                if not exists:
                    continue
                if target.exists():
                    raise InputError(
                        f"two images of the combined dataset would have the name {target.stem}; "
                        f"rename dataset {name}, or the image"
                    )
                checksums.verify(source)
                _link(source, target)
        if place:
            table = table.assign(image=prefix + table["image"], given_subset=splitting.EXTRA)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
