"""Number and size of the images of a dataset, as far as known before a study runs."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from denoiseg_flow.data import manifest, splitting
from denoiseg_flow.data.combined import parts
from denoiseg_flow.data.files.regions import Reading, find_regions
from denoiseg_flow.data.given_split import is_given
from denoiseg_flow.data.manifest import CROSS, TESTED
from denoiseg_flow.data.simulated import simulator
from denoiseg_flow.data.sources import count_simulated, find_sources, images_in_advance
from denoiseg_flow.errors import InputError

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Extent:
    """Number and shape of the images of a dataset; all are assumed to have the same shape.

    Attributes
    ----------
    n_train, n_val, n_test
        Number of images in each subset; cross-validated images count as test images.
    shape
        Shape of one image: ([z,] y, x).
    cross
        Whether annotated images are cross-validated.
    known
        Whether these values are known; otherwise they are estimates.
    """

    n_train: int
    n_val: int
    n_test: int
    shape: tuple[int, ...]
    cross: bool = False
    known: bool = True

    @property
    def n_images(self) -> int:
        """Number of images in all subsets."""
        return self.n_train + self.n_val + self.n_test

    @property
    def pixels(self) -> int:
        """Number of pixels of one image."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class _Part:
    """Number of images and annotated images of one source, and the shape of an image."""

    n_images: int
    n_annotated: int
    shape: tuple[int, ...]
    known: bool = True


# Assumed for an archive that is not downloaded yet. The DenoiSeg datasets have 1,000 to 4,500
# patches of 128x128 pixels, and 40 to 70 larger test images.
_ARCHIVE = _Part(4500, 4500, (128, 128), known=False)
_SIZES_OF_ARCHIVE = 675, 225


def extent(datasets: Mapping[str, Spec], name: str, data: Path) -> Extent:
    """Return number and size of the images of a dataset, from its manifest, config or first file.

    Parameters
    ----------
    datasets
        Section ``datasets`` of the config, with its defaults.
    name
        Name of the dataset.
    data
        Folder that holds ``{dataset}/prepared/manifest.tsv`` of every prepared dataset.
    """
    of = parts(datasets, name)
    tables = [data / part / "prepared/manifest.tsv" for part in of]
    found = (_find(datasets[part], table) for part, table in zip(of, tables, strict=True))
    first, *extra = found
    n_val, n_test, cross = _count_drawn(datasets[of[0]], first, tables[0])
    n_train = first.n_images - n_val - n_test + sum(part.n_images for part in extra)
    return Extent(
        n_train=min(datasets[name].get("n_train") or n_train, n_train),
        n_val=n_val,
        n_test=n_test,
        shape=max((part.shape for part in (first, *extra)), key=math.prod),
        cross=cross,
        known=all(part.known for part in (first, *extra)),
    )


def _count_drawn(spec: Spec, part: _Part, table: Path) -> tuple[int, int, bool]:
    """Return the numbers of validation and test images, and whether these are cross-validated."""
    how = spec["split"]
    if is_given(how):
        images = images_in_advance(spec)
        if images is None and table.exists():
            images = manifest.read(table)
        # The manifest may be older than the config.
        with suppress(InputError):
            if images is not None:
                divided = splitting.divide(images, how)["subset"]
                n_val, n_test = (int(divided.isin(names).sum()) for names in (["val"], TESTED))
                return n_val, n_test, CROSS in set(divided)
    if part is _ARCHIVE or isinstance(how, str):
        return *_SIZES_OF_ARCHIVE, False
    sizes = splitting.subset_sizes(part.n_images, part.n_annotated, how)
    return sizes.val, part.n_annotated if sizes.cross else sizes.test, sizes.cross


def _find(spec: Spec, table: Path) -> _Part:
    """Return number and size of the images of a source; a manifest gives the largest size."""
    if table.exists():
        return _of_manifest(table)
    if spec["source"] == "simulate":
        side = spec.get("size", simulator.SIZE)
        shape = (*filter(None, [spec.get("depth")]), side, side)
        return _Part(*count_simulated(spec), shape)
    if spec["source"] == "folder":
        return _of_folders(spec)
    return _ARCHIVE


def _of_manifest(table: Path) -> _Part:
    rows = manifest.read(table)
    volume = (rows["depth"] * rows["height"] * rows["width"]).idxmax()
    depth, *plane = rows.loc[volume, ["depth", "height", "width"]]
    shape = tuple(map(int, plane if depth == 1 else (depth, *plane)))
    return _Part(len(rows), int(rows["annotated"].sum()), shape)


def _of_folders(spec: Spec) -> _Part:
    """Estimate from all file names and the first file; each file may hold several images."""
    sources = find_sources(spec)
    with Reading.of(spec).open(sources[0].image) as file:
        regions = list(find_regions(file, Reading.of(spec)))
        shape = regions[0].shape
    axes = 3 if spec.get("dimensions") == 3 else 2
    n_annotated = sum(source.mask is not None for source in sources)
    return _Part(
        len(sources) * len(regions),
        n_annotated * len(regions),
        (math.prod(shape[:-axes]) * shape[-axes], *shape[1 - axes :]),
        known=len(regions) == 1,
    )
