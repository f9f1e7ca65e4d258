"""Give every reader damaged and forged files, and see that it reads them or says what is wrong.

    python tests/faults/fuzz_readers.py --minutes 10 --seed 0

An input is a valid file of one of the formats below with a few changes: bits, bytes, numbers and
words, pieces cut out, doubled or taken from elsewhere, in the file itself or, where a checksum
would betray that, in a member of the archive, a chunk of the png, or a value of the metadata.

Good ends are two: it is read, or refused by an InputError of one line. Anything else is a finding:
another exception, a dead process, more than ``SECONDS``, or more than ``MEMORY`` beyond what the
imports take. The input of a finding is made again by its name: ``--only tif:123 --seed 0``.
"""

import argparse
import copy
import io
import json
import multiprocessing
import random
import re
import resource
import shutil
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from denoiseg_flow.data import splitting

SECONDS = 20
MEMORY = 2**30
ROOT = Path(__file__).parents[2]


class Reader(NamedTuple):
    """What is tried: valid files, and what a user does with them."""

    make: Callable[[Path], None]
    """Writes valid inputs, each a file or folder, into an empty folder."""
    read: Callable[[Path, Path], None]
    """Reads one of them; may write to the empty folder that is given, too."""


# --- valid files ---------------------------------------------------------------------------------


def make_tifs(folder: Path) -> None:
    import numpy as np
    import tifffile
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (3, 33, 20), np.uint8)
    grey = {"photometric": "minisblack"}
    tiles = {"tile": (16, 16), "compression": "zlib"}
    for name, stack, options in (
        ("plain", pixels[0], {}),
        ("strips", pixels[0].astype("u2"), {"rowsperstrip": 5, "byteorder": ">"}),
        ("tiles", pixels, {"metadata": {"axes": "ZYX"}, **tiles}),
        ("predictor", pixels[0].astype("u2"), {"compression": "zlib", "predictor": True}),
        ("imagej", pixels, {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 2}}),
        ("bigtiff", pixels.astype("f4"), {"bigtiff": True, "metadata": {"axes": "CYX"}}),
    ):
        tifffile.imwrite(folder / f"{name}.tif", stack, **grey, **options)
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2}
    channels = {"Channel": {"Name": ["DAPI", "GFP", "RFP"]}}
    for axes, known in (("ZYX", sizes), ("CYX", channels)):
        metadata = {"axes": axes, **known}
        tifffile.imwrite(folder / f"{axes}.ome.tif", pixels, metadata=metadata, **tiles)
    with tifffile.TiffWriter(folder / "pyramid.ome.tif") as tif:
        tif.write(pixels[0].repeat(2, 0), subifds=1, metadata={"axes": "YX"}, **tiles, **grey)
        tif.write(pixels[0], subfiletype=1, **tiles, **grey)
    for compression in ("tiff_lzw", "packbits", "jpeg", "group4"):
        mode = "1" if compression == "group4" else "L"
        image = Image.fromarray(pixels[0]).convert(mode)
        image.save(folder / f"{compression}.tif", compression=compression)


def make_pngs(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (33, 20), np.uint8)
    Image.fromarray(pixels).save(folder / "grey.png")
    Image.fromarray(pixels.astype(np.uint16) * 200).save(folder / "deep.png")
    Image.fromarray(pixels).convert("P").save(folder / "palette.png")
    Image.fromarray(pixels).convert("RGBA").save(folder / "colour.png")
    Image.fromarray(pixels > 99).save(folder / "bits.png")


def make_pictures(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (33, 20), np.uint8)
    for name in ("grey.bmp", "grey.pgm", "grey.jpg"):
        Image.fromarray(pixels).save(folder / name)
    Image.fromarray(pixels).save(folder / "fine.jpeg", quality=95, progressive=True)
    Image.fromarray(pixels).convert("RGB").save(folder / "colour.jpg")
    Image.fromarray(pixels > 99).save(folder / "bits.bmp")
    Image.fromarray(pixels.astype(np.uint16) * 200).save(folder / "deep.pgm")
    (folder / "camera.pgm").write_bytes(b"P5 20 33 4095\n" + pixels.astype(">u2").tobytes())
    (folder / "text.pgm").write_text("P2 20 33 300\n" + " ".join(map(str, pixels.ravel())))


def make_zarrs(folder: Path) -> None:
    import numpy as np
    import zarr

    from denoiseg_flow.data.files.metadata import Metadata
    from denoiseg_flow.data.files.ome_zarr import create_ome_zarr

    pixels = np.random.default_rng(0).integers(1, 255, (2, 20, 30), np.uint16)
    metadata = Metadata("ZYX", {"Z": 2.0, "Y": 0.5, "X": 0.5})
    with create_ome_zarr(folder / "old.zarr", pixels.shape, "u2", metadata, (1, 16, 16)) as array:
        array[...] = pixels
    attributes = json.loads((folder / "old.zarr" / ".zattrs").read_text())
    attributes["omero"] = {"channels": [{"label": "DAPI"}]}
    for name, options in (
        ("new", {}),
        ("shards", {"shards": (2, 16, 16), "compressors": zarr.codecs.GzipCodec()}),
    ):
        group = zarr.open_group(str(folder / f"{name}.zarr"), mode="w", zarr_format=3)
        group.attrs["ome"] = {"version": "0.5", **attributes}
        array = group.create_array("0", shape=pixels.shape, dtype="u2", chunks=(1, 8, 8), **options)
        array[...] = pixels


def make_folders(folder: Path) -> None:
    import numpy as np
    import tifffile
    from PIL import Image

    rng = np.random.default_rng(0)
    for study in ("tifs", "pngs"):
        for kind in ("images", "masks"):
            (folder / study / kind).mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, 9 if kind == "masks" else 255, (20, 20), np.uint8)
                path = folder / study / kind / f"cell {number}é"
                if study == "tifs":
                    tifffile.imwrite(f"{path}.tif", pixels, compression="zlib")
                else:
                    Image.fromarray(pixels).save(f"{path}.png")


def make_annotations(folder: Path) -> None:
    import numpy as np
    import roifile
    import tifffile

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (20, 20), np.uint16)
    corners = [[2, 3], [12, 3], [12, 9], [2, 9], [2, 3]]
    rois = [
        roifile.ImagejRoi.frompoints(corners),
        roifile.ImagejRoi.frompoints(np.add(corners, 0.5)),
    ]
    rois.append(roifile.ImagejRoi(roitype=roifile.ROI_TYPE.OVAL, left=3, top=3, right=9, bottom=8))
    rois.append(roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, shape_roi_size=10))
    rois[-1].multi_coordinates = np.array([0, 1, 1, 1, 5, 1, 1, 5, 5, 4], np.float32)
    polygon = {"type": "Polygon", "coordinates": [corners], "plane": {"c": -1, "z": 0, "t": 0}}
    parts = {"type": "MultiPolygon", "coordinates": [[corners], [corners]]}
    features = [
        {"type": "Feature", "geometry": each, "properties": {}} for each in (polygon, parts)
    ]
    runs = {"size": [20, 20], "counts": [30, 40, 330]}
    segmentations = [[[2, 3, 12, 3, 12, 9]], runs, {"size": [20, 20], "counts": "n0`0f1>h6"}]
    coco = {
        "images": [{"id": 1, "file_name": "a.tif", "height": 20, "width": 20}],
        "annotations": [
            {"id": n, "image_id": 1, "iscrowd": int(n == 1), "segmentation": each}
            for n, each in enumerate(segmentations)
        ],
        "categories": [],
    }
    for name in ("npy", "cellpose", "rois", "roi", "geojson", "coco"):
        for kind in ("images", "masks"):
            (folder / name / kind).mkdir(parents=True)
        pixels = rng.integers(0, 255, (20, 20), np.uint8)
        tifffile.imwrite(folder / name / "images/a.tif", pixels)
    np.save(folder / "npy/masks/a.npy", labels)
    np.save(folder / "cellpose/masks/a_seg.npy", {"masks": labels, "flows": [], "filename": "a"})
    roifile.roiwrite(folder / "rois/masks/a.zip", rois)
    roifile.roiwrite(folder / "roi/masks/a.roi", rois[1])
    (folder / "geojson/masks/a.geojson").write_text(json.dumps(features))
    (folder / "coco/masks.json").write_text(json.dumps(coco))
    (folder / "coco/masks").rmdir()


def make_npzs(folder: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    x, y = rng.random((3, 8, 9), np.float32), rng.integers(0, 9, (3, 8, 9))
    ragged = np.empty(3, object)
    ragged[:] = [x[0], x[1, :4], np.asfortranarray(x[2])]
    labels = np.empty(3, object)
    labels[:] = [y[0], y[1, :4], y[2]]
    for name, images, truth in (
        ("plain", x, y),
        ("ragged", ragged, labels),
        ("fortran", np.asfortranarray(x), y),
    ):
        (folder / name).mkdir()
        train = {"X_train": images, "Y_train": truth, "X_val": images, "Y_val": truth}
        np.savez(folder / name / "train_data.npz", **train)
        np.savez_compressed(folder / name / "test_data.npz", X_test=images, Y_test=truth)


def make_archives(folder: Path) -> None:
    members = {"top/images/a.tif": b"abc" * 99, "top/b.txt": b"", "top/c": bytes(9999)}
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("top")
        for name, content in members.items():
            archive.writestr(name, content)
    for mode, form in (("", tarfile.PAX_FORMAT), ("gz", tarfile.GNU_FORMAT), ("xz", 0)):
        path = folder / f"a.tar.{mode}"
        with tarfile.open(path, f"w:{mode}", format=form) as archive:
            for name, content in {**members, f"{'long/' * 60}é": b"x"}.items():
                info = tarfile.TarInfo(name if form else name[:90])
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "top/c"
            if mode == "xz":
                archive.addfile(link)


def make_models(folder: Path) -> None:
    import torch

    from denoiseg_flow.methods.definition import Method, Recipe
    from denoiseg_flow.methods.networks.layout import Layout
    from denoiseg_flow.models.model import ClassicalModel, TrainedModel, new_network
    from denoiseg_flow.models.model_file import save_model
    from denoiseg_flow.models.normalisation import Normalisation
    from denoiseg_flow.models.threshold import Threshold

    torch.manual_seed(0)
    recipe = Recipe(
        depth=1, filters=2, patch_size=16, batch_size=4, epochs=1, steps_per_epoch=1,
        learning_rate=1e-3, schedule="one_cycle", weights="last", annotated_share=0.5,
        loss_normalisation="annotated_pixels", batch_norm_momentum=0.1, freeze_batch_norm=0.0,
        ema_decay=0.0, masked_fraction=0.1, pseudo_labels=0.0, validation_patches=4,
        preserve_mean=False, instances="components", test_time_augmentation=False,
    )  # fmt: skip
    identity = {"dataset": "a", "noise": "n10", "method": "m", "n_annotated": 4, "seed": 1}
    n2v = Method("n2v", target="blind_spot", alpha=1)
    layouts = {"planes": Layout(), "volumes": Layout(3, 2, 4, (2,))}
    for name, layout in layouts.items():
        denoiser = TrainedModel(
            n2v,
            recipe,
            identity,
            Normalisation((1.0,), (2.0,)),
            new_network(n2v, recipe, layout),
            layout,
        )
        save_model(denoiser, folder / f"{name}.pt")
    method = Method("sequential", input="n2v", network="unet_blurpool")
    network = new_network(method, recipe, layouts["volumes"])
    segmenter = TrainedModel(
        method, recipe, identity, Normalisation((1.0, 2.0), (3.0, 4.0)), network,
        layouts["volumes"], Threshold(0.5, 0.7, 3), input=denoiser, origin={"images": 3},
    )  # fmt: skip
    segmenter.held_out = {"a": segmenter}
    save_model(segmenter, folder / "chain.pt")
    classical = ClassicalModel(Method("median", classical="median"), identity, 3.0, None)
    save_model(classical, folder / "classical.pt")


def make_configs(folder: Path) -> None:
    for path in ("config.yaml", "test.yaml", "volumes.yaml", "paper/noise2self.yaml"):
        shutil.copy(ROOT / "config" / path, folder / Path(path).name)


def make_records(folder: Path) -> None:
    import pandas as pd

    from denoiseg_flow.data import manifest
    from denoiseg_flow.deployment.ledger import Entry, Record

    record = Record(folder)
    names = ("a", "b c", 'd"é', "e")
    record.replace(Entry(name, f"/data/{name}.tif", 99, 10**18, "0" * 64, 3) for name in names)
    rows = [
        (name, 32, 32, 1, "uint8", int(place < 3), 5, 1, "", f"{name}.tif")
        for place, name in enumerate(names)
    ]
    table = pd.DataFrame(rows, columns=list(manifest.MANIFEST_COLUMNS))
    manifest.write(table, folder / "manifest.tsv")


# --- what users do with them ---------------------------------------------------------------------


def read_image_file(path: Path, folder: Path) -> None:
    from denoiseg_flow.data.files.reader import open_image_file
    from denoiseg_flow.data.files.regions import Reading, find_regions
    from denoiseg_flow.data.validation import check_image

    with open_image_file(path) as file:
        volumes = 3 if "Z" in file.metadata.axes else 2
        reading = Reading(dimensions=volumes, channel="all", pixel_size=(1, 1, 1)[-volumes:])
        for region in islice(find_regions(file, reading), 20):
            check_image(region, str(path), constant=True)
        if file.shape and max(file.shape) < 2**12:
            file.read([slice(0, 64)] * len(file.shape))


def read_folders(path: Path, folder: Path) -> None:
    from denoiseg_flow.data import manifest
    from denoiseg_flow.data.prepare import prepare

    masks = next((each for each in path.iterdir() if each.name.startswith("masks")), None)
    spec = {"source": "folder", "images": path / "images", "masks": masks}
    prepare(spec, None, folder / "prepared")
    manifest.read(folder / "prepared" / "manifest.tsv")


def read_npz(path: Path, folder: Path) -> None:
    from denoiseg_flow.data.denoiseg_npz import read_denoiseg_npz

    for _ in read_denoiseg_npz(path):
        pass


def read_archive(path: Path, folder: Path) -> None:
    from denoiseg_flow.data.download import unpack

    unpack(path, folder / "inner" / "unpacked", max_bytes=2**24)
    outside = {found.name for found in folder.iterdir()} - {"inner"}
    if outside or {found.name for found in (folder / "inner").iterdir()} != {"unpacked"}:
        raise AssertionError(f"wrote outside of its folder: {outside}")


def read_model(path: Path, folder: Path) -> None:
    import yaml

    from denoiseg_flow.models.model import summary
    from denoiseg_flow.models.model_file import describe_model, load_model

    told = describe_model(path)
    yaml.safe_dump(told, sort_keys=False, allow_unicode=True)
    summary(load_model(path))


def read_config(path: Path, folder: Path) -> None:
    import yaml
    from snakemake.utils import update_config

    from denoiseg_flow.data.sources import check_sources
    from denoiseg_flow.errors import InputError
    from denoiseg_flow.study import configuration
    from denoiseg_flow.study.feasibility import check_feasible
    from denoiseg_flow.study.grid import Grid

    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError("Snakemake says so") from error
    if not isinstance(given, dict):
        raise InputError("Snakemake says so")
    try:
        update_config(config, given)
    except RecursionError as error:  # a mapping that contains itself
        raise InputError("Snakemake says so") from error
    configuration.read_numbers(config, schema)
    configuration.check(config, schema)
    configuration.fill_defaults(config, schema)
    grid = Grid(config)
    check_feasible(grid)
    check_sources(config, grid.n_annotated)
    assert all(needed in grid.runs for run in grid.runs for needed in grid.upstream(run))


def read_record(path: Path, folder: Path) -> None:
    from denoiseg_flow.data import manifest
    from denoiseg_flow.deployment.ledger import Record

    if path.name == "images.tsv":
        record = Record(path.parent)
        record.replace(list(record.read().values()))
        return
    how = {"val": 0.2, "test": 0.3, "seed": 0}
    manifest.write(splitting.split(manifest.read(path), how, 1), folder / "split.tsv")
    splitting.annotated_images(manifest.read(folder / "split.tsv"), 1)


READERS = {
    "tif": Reader(make_tifs, read_image_file),
    "png": Reader(make_pngs, read_image_file),
    "picture": Reader(make_pictures, read_image_file),
    "zarr": Reader(make_zarrs, read_image_file),
    "folder": Reader(make_folders, read_folders),
    "annotation": Reader(make_annotations, read_folders),
    "npz": Reader(make_npzs, read_npz),
    "archive": Reader(make_archives, read_archive),
    "model": Reader(make_models, read_model),
    "config": Reader(make_configs, read_config),
    "record": Reader(make_records, read_record),
}


# --- changes -------------------------------------------------------------------------------------

NUMBERS = [0, 1, 2, 7, 127, 255, 256, 0x7FFF, 0xFFFF, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63]
LEAVES: list[Any] = [
    None, True, -1, 0, 1, 7, 100, 10**9, 10**18, 2**64, -(10**30), 0.5, 1e308, float("nan"),
    float("inf"), "", "a", "all", "../../../etc/passwd", "/etc/passwd", "$(touch /tmp/pwned)",
    "{input}", "<results>", "é\n\0\x1b[31m", "<img src=x onerror=alert(1)>", "9" * 5000, "=1+1",
    [], [[]], {}, {"a": 1}, [0, -1], ["a"] * 99, [[10**9] * 3] * 3, "noisy", "n2v", "pickle", "|O",
]  # fmt: skip
WORDS = [
    b"", b"\0", b"-1", b"99999999999", b"1e999", b"nan", b"../..", b'"', b"\n", b"\t", b"\xff\xfe",
    b"<!ENTITY a 'b'>", b"&a;", b"]]>", b"{{", b"[" * 5000, b"9" * 5000, b"%s%n", b"*a",
    b"!!python",
]  # fmt: skip


def change_bytes(content: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Return bytes with one to four changes; pieces of ``other`` may come in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = min(int(rng.random() ** rng.choice((1, 4)) * len(data)), max(len(data) - 1, 0))
        end = place + rng.choice((1, 2, 4, 8, 64, 512))
        match rng.randrange(10):
            case 0 | 1 if data:
                data[place] ^= 1 << rng.randrange(8)
            case 2 if data:
                data[place] = rng.randrange(256)
            case 3 | 4:
                kind = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
                limit = 256 ** struct.calcsize(kind)
                data[place : place + struct.calcsize(kind)] = struct.pack(
                    kind, (rng.choice(NUMBERS) + rng.choice((0, 0, 1, -1))) % limit
                )
            case 5:
                del data[place : len(data) if rng.random() < 0.3 else end]
            case 6:
                data[place:place] = data[place:end]
            case 7:
                start = rng.randrange(len(other) + 1)
                data[place:end] = other[start : start + end - place]
            case _:
                found = list(islice(re.finditer(rb"-?\d+(\.\d+)?|[A-Za-z]+", data), 5000))
                if found:
                    old = rng.choice(found)
                    new = rng.choice([*WORDS, str(rng.choice(NUMBERS)).encode()])
                    data[old.start() : old.end()] = new
    return bytes(data)


def change_zip(content: bytes, rng: random.Random, other: bytes) -> bytes:
    """Change a member of a zip file, or its name, and leave the rest in order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        chosen = rng.choice(old.namelist())
        for info in old.infolist():
            inside, name = old.read(info), info.filename
            if name == chosen:
                if rng.random() < 0.2:
                    name = rng.choice(
                        ["../x", "/x", "a\\..\\..\\x", "C:x", "x" * 300, "a\nb", name]
                    )
                else:
                    inside = change_bytes(inside, rng, other)
            member = zipfile.ZipInfo(name)
            member.external_attr = rng.choice((0, 0, 0, 0o120777, 0o100644)) << 16
            member.compress_type = info.compress_type
            new.writestr(member, inside)
    return buffer.getvalue()


def change_png(content: bytes, rng: random.Random, other: bytes) -> bytes:
    """Change the content of a chunk of a png file and correct its checksum."""
    start, chunks = 8, []
    while start < len(content):
        length = int.from_bytes(content[start : start + 4])
        chunks.append((content[start + 4 : start + 8], content[start + 8 : start + 8 + length]))
        start += length + 12
    chosen, result = rng.randrange(len(chunks)), content[:8]
    for number, (kind, inside) in enumerate(chunks):
        if number == chosen:
            if kind == b"IDAT" and rng.random() < 0.5:
                inside = zlib.compress(change_bytes(zlib.decompress(inside), rng, other))
            else:
                inside = change_bytes(inside, rng, other)
        check = zlib.crc32(kind + inside)
        result += len(inside).to_bytes(4) + kind + inside + check.to_bytes(4)
    return result


def change_leaf(value: Any, rng: random.Random) -> Any:
    """Put something else in the place of one value of nested lists and mappings."""
    value = copy.deepcopy(value)
    holder, key, inside = None, None, value
    while isinstance(inside, dict | list) and inside and rng.random() < 0.93:
        holder = inside
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        inside = holder[key]
    if holder is None:
        return rng.choice(LEAVES)
    if isinstance(holder, dict) and rng.random() < 0.2:
        new = rng.choice(LEAVES)
        holder[new if isinstance(new, str | int) else "é"] = holder.pop(key)
    elif rng.random() < 0.1:
        del holder[key]
    else:
        holder[key] = copy.deepcopy(rng.choice(LEAVES))
    return value


def change_json(content: bytes, rng: random.Random, other: bytes) -> bytes:
    return json.dumps(change_leaf(json.loads(content), rng)).encode()


def change_yaml(content: bytes, rng: random.Random, other: bytes) -> bytes:
    import yaml

    value = yaml.safe_load(content)
    for _ in range(rng.choice((1, 1, 2))):
        value = change_leaf(value, rng)
    return yaml.safe_dump(value, allow_unicode=True).encode()


def change_model(content: bytes, rng: random.Random, other: bytes) -> bytes:
    import torch

    value = torch.load(io.BytesIO(content), weights_only=True)
    for _ in range(rng.choice((1, 1, 2))):
        value = change_leaf(value, rng)
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


BY_ENDING = {
    ".png": [change_png],
    ".zip": [change_zip],
    ".npz": [change_zip, change_zip],
    ".pt": [change_zip, change_model, change_model],
    ".json": [change_json, change_json],
    ".geojson": [change_json, change_json],
    ".zarray": [change_json, change_json],
    ".zattrs": [change_json, change_json],
    ".yaml": [change_yaml, change_yaml],
}


def change_file(path: Path, rng: random.Random, others: list[Path]) -> None:
    content, other = path.read_bytes(), rng.choice(others).read_bytes()
    ending = path.name if path.name.startswith(".") else path.suffix
    change = rng.choice([change_bytes, *BY_ENDING.get(ending, [])])
    path.write_bytes(change(content, rng, other))


def files_of(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def make_input(name: str, number: int, seed: int, valid: Path, folder: Path) -> Path:
    """Write the input of that name and number; the same for the same seed."""
    rng = random.Random(f"{seed} {name} {number}")
    original = rng.choice(sorted(valid.iterdir()))
    path = folder / original.name
    (shutil.copytree if original.is_dir() else shutil.copy)(original, path)
    for chosen in rng.choices(files_of(path), k=rng.choice((1, 1, 2))):
        with suppress(Exception):  # an earlier change made it another kind of file
            change_file(chosen, rng, files_of(valid))
    return path


# --- one process that reads, another that watches it ---------------------------------------------


def try_input(name: str, number: int, seed: int, valid: Path) -> tuple[str, str]:
    """Say whether an input was read, refused, or is a finding, and why."""
    from denoiseg_flow.errors import InputError

    with tempfile.TemporaryDirectory() as scratch:
        for part in ("in", "out"):
            Path(scratch, part).mkdir()
        path = make_input(name, number, seed, valid / name, Path(scratch, "in"))
        try:
            READERS[name].read(path, Path(scratch, "out"))
        except InputError as error:
            cause = error
            while cause is not None:
                if isinstance(cause, MemoryError) or "can't allocate memory" in str(cause):
                    return "finding", f"too much memory: {error}"
                cause = cause.__cause__ or cause.__context__
            message = str(error).replace(scratch, "")
            one_line = message.isprintable() and len(message) < 1000
            return ("refused" if one_line else "finding"), message
        except Exception:
            return "finding", traceback.format_exc().replace(scratch, "")
    return "read", ""


def serve(connection: Any, seed: int, valid: Path) -> None:
    """Try the inputs that are asked for, within bounds of memory."""
    import logging

    import torch  # noqa: F401
    import zarr  # noqa: F401

    import denoiseg_flow.models.model  # noqa: F401

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (asked := connection.recv()) is not None:
        connection.send(try_input(*asked, seed, valid))


class Worker:
    """The process that reads; started anew when it dies."""

    def __init__(self, seed: int, valid: Path) -> None:
        self.seed, self.valid = seed, valid
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(
            target=serve, args=(other, self.seed, self.valid), daemon=True
        )
        self.process.start()
        other.close()
        self.fresh = True

    def ask(self, name: str, number: int) -> tuple[str, str]:
        self.connection.send((name, number))
        # A new process imports first.
        if not self.connection.poll(SECONDS + 60 * self.fresh):
            outcome = "finding", f"took more than {SECONDS} seconds"
        else:
            self.fresh = False
            try:
                return self.connection.recv()
            except EOFError:
                self.process.join()
                outcome = "finding", f"the process died (status {self.process.exitcode})"
        self.stop()
        self.start()
        return outcome

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def numbered(names: list[str]) -> Iterator[tuple[str, int]]:
    """Yield the inputs of all readers in turns, without end."""
    number = 0
    while True:
        for name in names:
            yield name, number
        number += 1


def fuzz(
    inputs: Iterator[tuple[str, int]], seed: int, minutes: float
) -> tuple[dict[str, Counter], dict[str, str]]:
    """Try inputs until there are no more or the time is over; return counts and findings."""
    counts = {name: Counter() for name in READERS}
    findings = {}
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        for name, reader in READERS.items():
            Path(folder, name).mkdir()
            reader.make(Path(folder, name))
        worker = Worker(seed, Path(folder))
        try:
            for name, number in inputs:
                if time.monotonic() > end:
                    break
                outcome, said = worker.ask(name, number)
                counts[name][outcome] += 1
                if outcome == "finding":
                    findings[f"{name}:{number}"] = said
        finally:
            worker.stop()
    return counts, findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--only", nargs="+", help="inputs by name, such as tif:123")
    options = parser.parse_args()
    inputs = numbered(options.readers)
    if options.only:
        parts = (each.split(":") for each in options.only)
        inputs = iter([(name, int(number)) for name, number in parts])
    counts, findings = fuzz(inputs, options.seed, options.minutes)
    for name, said in findings.items():
        print(f"--- {name}\n{said}\n")
    outcomes = ("read", "refused", "finding")
    print(f"{'reader':10}{'inputs':>10}" + "".join(f"{each:>10}" for each in outcomes))
    total = sum(counts.values(), Counter())
    for name, found in [*counts.items(), ("all", total)]:
        numbers = (found.total(), *(found[each] for each in outcomes))
        print(f"{name:10}" + "".join(f"{number:10}" for number in numbers))
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
