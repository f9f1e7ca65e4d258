"""Quality checks of a dataset before training: images, masks, duplicates and noise."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import skimage as ski

from denoiseg_flow.data.layout import PreparedData, image_file
from denoiseg_flow.data.manifest import CROSS
from denoiseg_flow.data.neighbours import neighbours
from denoiseg_flow.data.prepare import about_files
from denoiseg_flow.data.store import centre_crop, middle_plane, open_image, open_labels
from denoiseg_flow.evaluation.acquisitions import compare_acquisitions
from denoiseg_flow.evaluation.noise_structure import CENTRE, NoiseStructure, noise_of_files
from denoiseg_flow.findings import Finding, count, in_order
from denoiseg_flow.methods.classical import noise_level

# Thresholds of findings.
SATURATED = 0.01  # share of pixels with the largest grey level of an image
BLACK = 0.2  # share of pixels with the smallest grey level
OTHER_RANGE = 8  # factor above or below the median range of grey levels
TINY = 10  # pixels of an object
TOUCHING = 0.05  # share of objects
SAME = 0.99  # correlation of the thumbnails of two images

THUMBNAIL = 16  # pixels per side


@dataclass(frozen=True)
class DataChecks:
    """Results of the quality checks of a dataset.

    Attributes
    ----------
    images
        One row per image: image, subset, annotated, height, width, depth, dtype, minimum, maximum,
        range (from percentile 1 to 99.8 of its middle plane), saturated and black (shares of
        pixels), noise_sigma; for annotated images also objects, median_area, tiny, touching,
        in_pieces (numbers of objects) and ignored (share of pixels).
    noise
        The correlation of the noise.
    findings
        Problems first, then warnings, then notes.
    """

    images: pd.DataFrame
    noise: NoiseStructure
    findings: list[Finding]


def check_dataset(prepared: PreparedData, noisy: Path, split: pd.DataFrame) -> DataChecks:
    """Check a prepared dataset, with one image in memory at a time.

    Parameters
    ----------
    prepared
        The prepared dataset, with its manifest, masks, further acquisitions and list of excluded
        files.
    noisy
        Folder of the input images of methods, one ``{image}.tif`` each.
    split
        Table of :func:`~denoiseg_flow.data.splitting.split`: columns image, subset and annotated.
    """
    rows, contents, thumbnails = [], {}, {}
    # Noisy images are always float32: the manifest has the dtype of the user's images.
    dtypes = prepared.read_manifest().set_index("image")["dtype"]
    for row in split.itertuples():
        path = image_file(noisy, row.image)
        image = open_image(path)
        plane, depth = middle_plane(image[0]), image.shape[1:-2]
        measured = {"image": row.image, "subset": row.subset, "annotated": int(row.annotated)}
        measured |= dict(zip(("height", "width"), plane.shape, strict=True))
        measured |= {"depth": depth[0] if depth else 1, "dtype": dtypes[row.image]}
        measured |= _intensities(image, plane)
        if row.annotated:
            measured |= _objects(np.asarray(open_labels(prepared.mask(row.image))))
        rows.append(measured)
        contents[row.image] = hashlib.sha256(np.ascontiguousarray(image).data).digest()
        thumbnails[row.image] = _thumbnail(plane)
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    noise = noise_of_files([image_file(noisy, name) for name in table["image"]])
    found = [
        *about_files(prepared.folder),
        *_about_images(table),
        *_about_masks(table),
        *_about_twins(table, contents, thumbnails),
        *_about_noise(table, noise),
        *compare_acquisitions(prepared, table["image"]),
    ]
    return DataChecks(table, noise, in_order(found))


COLUMNS = [
    *("image", "subset", "annotated", "height", "width", "depth", "dtype"),
    *("minimum", "maximum", "range", "saturated", "black", "noise_sigma"),
    *("objects", "median_area", "tiny", "touching", "in_pieces", "ignored", "one_label"),
]


def _intensities(image: np.ndarray, plane: np.ndarray) -> dict[str, object]:
    low, high, centre = float(image.min()), float(image.max()), centre_crop(plane, CENTRE)
    return {
        "minimum": low,
        "maximum": high,
        "range": float(np.subtract(*np.percentile(centre, (99.8, 1)))),
        "saturated": float(np.mean(image == high)),
        "black": float(np.mean(image == low)),
        "noise_sigma": noise_level(centre),
    }


def _objects(labels: np.ndarray) -> dict[str, object]:
    """Count all objects of a mask, and the unusual ones."""
    objects, ignored = np.maximum(labels, 0), labels < 0
    values, areas = np.unique(objects[objects > 0], return_counts=True)
    pieces = ski.measure.label(objects)
    _, first = np.unique(pieces, return_index=True)
    owners = Counter(objects.ravel()[first].tolist())
    # Scribbles are thin and interrupted, even if the objects are not.
    whole = not ignored.any()
    return {
        "objects": len(values),
        "median_area": float(np.median(areas)) if len(areas) else np.nan,
        "tiny": whole * int((areas < TINY).sum()),
        "touching": len(_touching(objects)),
        "in_pieces": whole * sum(count > 1 for label, count in owners.items() if label > 0),
        "ignored": float(ignored.mean()),
        # Typical of a binary mask.
        "one_label": int(whole and len(values) == 1 and owners[int(values[0])] > 1),
    }


def _touching(objects: np.ndarray) -> set[int]:
    """Return the labels of objects that touch another object, also diagonally."""
    found: set[int] = set()
    both = (neighbours(objects.ndim, corners) for corners in (False, True))
    for first, second in chain(*both):
        one, other = objects[first], objects[second]
        met = (one > 0) & (other > 0) & (one != other)
        found |= set(one[met].tolist()) | set(other[met].tolist())
    return found


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Return means over the cells of a grid, with mean 0 and norm 1 (0 for a constant image)."""
    small = image
    for axis, size in enumerate(image.shape):
        cells = min(THUMBNAIL, size)
        edges = np.linspace(0, size, cells, endpoint=False).astype(int)
        lengths = np.diff([*edges, size])
        sums = np.add.reduceat(small, edges, axis=axis, dtype=np.float64)
        small = sums / np.expand_dims(lengths, 1 - axis)
    small = (small - small.mean()).ravel()
    length = np.linalg.norm(small)
    return small / length if length > 1e-9 * float(np.abs(image).max()) else 0 * small


def _about_images(table: pd.DataFrame) -> Iterator[Finding]:
    shapes = Counter(zip(table["depth"], table["height"], table["width"], strict=True))
    (depth, height, width), _ = shapes.most_common(1)[0]
    size = f"{height}x{width} pixels" if depth == 1 else f"{depth}x{height}x{width} voxels"
    others = f" and {count(len(shapes) - 1, 'other size')}" if len(shapes) > 1 else ""
    yield Finding(
        "note",
        "images",
        f"{count(len(table), 'image')} of {size}{others}, {table['annotated'].sum()} of them "
        f"annotated; grey levels from {table['minimum'].min():g} to {table['maximum'].max():g}.",
    )
    types = Counter(table["dtype"])
    if len(types) > 1:
        listed = ", ".join(f"{count} of {name}" for name, count in types.most_common())
        rare = table.loc[table["dtype"] != types.most_common(1)[0][0], "image"]
        yield Finding(
            "warning",
            "pixel types",
            f"The images have different pixel types ({listed}). The network normalises all images "
            "in the same way: export all of them with the same pixel type.",
            tuple(rare),
        )
    middle = table["range"].median()
    unlike = (table["range"] > OTHER_RANGE * middle) | (table["range"] < middle / OTHER_RANGE)
    if unlike.any():
        yield Finding(
            "warning",
            "intensities",
            f"The range of grey levels of {count(unlike.sum(), 'image')} is more than "
            f"{OTHER_RANGE} times larger or smaller than the median ({middle:g}). The network "
            "normalises all images in the same way: check exposure and export.",
            tuple(table.loc[unlike, "image"]),
        )
    saturated = table["saturated"] > SATURATED
    if saturated.any():
        yield Finding(
            "warning",
            "saturation",
            f"In {count(saturated.sum(), 'image')}, more than {SATURATED:.0%} of the pixels have "
            "the largest grey level (overexposed): clipped intensities cannot be restored.",
            tuple(table.loc[saturated, "image"]),
        )
    black = (table["black"] > BLACK) & (table["noise_sigma"] > 0)
    if black.any():
        yield Finding(
            "warning",
            "black level",
            f"In {count(black.sum(), 'image')}, more than {BLACK:.0%} of the pixels have the "
            "smallest grey level: the negative half of the noise was clipped, so its mean is not "
            "zero, and denoised images are too bright there. Export the images without background "
            "subtraction.",
            tuple(table.loc[black, "image"]),
        )


def _about_masks(table: pd.DataFrame) -> Iterator[Finding]:
    annotated = table[table["annotated"] == 1]
    if annotated.empty:
        return
    total = int(annotated["objects"].sum())
    empty = annotated.loc[annotated["objects"] == 0, "image"]
    negative = (
        f"; {count(len(empty), 'image')} without objects, assumed to be correct"
        if len(empty)
        else ""
    )
    ignored = annotated["ignored"].mean()
    left_out = f"; {ignored:.1%} of the pixels are ignored" if ignored else ""
    yield Finding(
        "note",
        "objects",
        f"{count(total, 'object')} in {count(len(annotated), 'annotated image')}, median size "
        f"{annotated['median_area'].median():.0f} pixels{negative}{left_out}.",
    )
    binary = annotated.loc[annotated["one_label"] == 1, "image"]
    if len(binary):
        yield Finding(
            "problem",
            "binary masks",
            f"{count(len(binary), 'mask')} with a single label for several regions, like a binary "
            "mask: all objects of such an image count as one. Set 'binary_masks: "
            "connected_components'.",
            tuple(binary),
        )
    for column, topic, words in [
        (
            "in_pieces",
            "objects in pieces",
            "with several separate regions: check whether two objects have the same label.",
        ),
        (
            "tiny",
            "tiny objects",
            f"with fewer than {TINY} pixels: check for accidental brush strokes.",
        ),
    ]:
        some = annotated[(annotated[column] > 0) & (annotated["one_label"] == 0)]
        if len(some):
            yield Finding(
                "warning",
                topic,
                f"{count(some[column].sum(), 'object')} in {count(len(some), 'image')} {words}",
                tuple(some["image"]),
            )
    touching = int(annotated["touching"].sum())
    if total and touching > TOUCHING * total:
        yield Finding(
            "note",
            "touching objects",
            f"{touching / total:.0%} of the objects touch another one. 'instances: watershed' in "
            "the recipe separates objects that the border class does not.",
        )


def _about_twins(
    table: pd.DataFrame, contents: dict[str, bytes], thumbnails: dict[str, np.ndarray]
) -> Iterator[Finding]:
    """Report duplicate images, above all those in the test set and in another subset."""
    subset = dict(zip(table["image"], table["subset"], strict=True))
    pairs = list(_twins(table, contents, thumbnails))
    leaks = [pair for pair in pairs if _leaks(*(subset[name] for name in pair))]
    if leaks:
        yield Finding(
            "problem",
            "leakage",
            f"{count(len(leaks), 'pair')} of identical or nearly identical images in the test set "
            f"and in the training or validation set ({_named(leaks)}): their scores say nothing "
            "about new images. Remove one image of each pair.",
            tuple(dict.fromkeys(name for pair in leaks for name in pair)),
        )
    rest = [pair for pair in pairs if pair not in leaks]
    if rest:
        yield Finding(
            "warning",
            "duplicates",
            f"{count(len(rest), 'pair')} of identical or nearly identical images ({_named(rest)}).",
            tuple(dict.fromkeys(name for pair in rest for name in pair)),
        )


def _twins(
    table: pd.DataFrame, contents: dict[str, bytes], thumbnails: dict[str, np.ndarray]
) -> Iterator[tuple[str, str]]:
    """Yield pairs of images of the same size with the same content or the same thumbnail."""
    for _, group in table.groupby(["height", "width"], sort=False):
        names = list(group["image"])
        stacked = np.stack([thumbnails[name] for name in names])
        for place, name in enumerate(names[:-1]):
            alike = stacked[place + 1 :] @ stacked[place] > SAME
            same = [contents[other] == contents[name] for other in names[place + 1 :]]
            for index in np.flatnonzero(alike | same):
                yield name, names[place + 1 + index]


def _leaks(one: str, other: str) -> bool:
    """Return whether one image may be scored by a network that was trained on the other."""
    return CROSS in (one, other) or (one != other and "test" in (one, other))


def _named(pairs: list[tuple[str, str]]) -> str:
    more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
    return ", ".join(" = ".join(pair) for pair in pairs[:3]) + more


def _about_noise(table: pd.DataFrame, noise: NoiseStructure) -> Iterator[Finding]:
    sigma = table["noise_sigma"]
    share = (sigma / table["range"].where(table["range"] > 0)).median()
    alike = noise.kind in ("x", "y", "both")
    yield Finding(
        "note",
        "noise level",
        f"Estimated standard deviation of the noise: {sigma.median():.3g} grey levels "
        f"({sigma.min():.3g} to {sigma.max():.3g}), {share:.1%} of the range of an image"
        + (
            ". The estimate assumes independent pixels, but neighbouring pixels are correlated."
            if alike
            else "."
        ),
    )
    nearest = f"{noise.along_x[0]:.2f} along x, {noise.along_y[0]:.2f} along y"
    match noise.kind:
        case "independent":
            yield Finding(
                "note",
                "noise structure",
                f"The noise is independent between pixels (correlation of neighbours {nearest}): "
                "Noise2Void, Noise2Self and DenoiSeg are applicable.",
            )
        case "x" | "y":
            mask = noise.struct_mask
            yield Finding(
                "warning",
                "noise structure",
                f"The noise is correlated along {noise.kind} (correlation of neighbours "
                f"{nearest}): Noise2Void, Noise2Self and DenoiSeg would mistake it for signal. "
                f"Use the method structn2v with 'struct_mask: {mask}'.",
            )
        case "both":
            yield Finding(
                "warning",
                "noise structure",
                f"Neighbouring pixels are correlated in both directions (correlation {nearest}): "
                "the images are almost free of noise, or were blurred, resized or compressed. "
                "Methods that learn from masked pixels will not remove such noise, and pretrained "
                "networks take it for objects if it is strong ('downscale: 2' in their recipe "
                "helps). Use the raw images of the camera if possible.",
            )
        case _:
            yield Finding("note", "noise structure", "No noise found: the flat parts are constant.")
