"""Look at a dataset before anything is trained on it: what a user would want to know first."""

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
from denoiseg_flow.data.prepare import left_out
from denoiseg_flow.data.store import centre_crop, middle_plane, open_channels, open_image
from denoiseg_flow.evaluation.noise_structure import CENTRE, NoiseStructure, noise_of_files
from denoiseg_flow.findings import Finding, count, in_order
from denoiseg_flow.methods.classical import noise_level

# What is worth a word.
SATURATED = 0.01  # share of pixels at the largest grey level of an image
BLACK = 0.2  # share of pixels at its smallest
OTHER_RANGE = 8  # times the median range of grey levels, or one of so many parts of it
TINY = 10  # pixels of an object
TOUCHING = 0.05  # share of objects
SAME = 0.99  # correlation of two images that are scaled down to thumbnails

THUMBNAIL = 16  # pixels a side


@dataclass(frozen=True)
class DataChecks:
    """What was found in a dataset.

    Attributes
    ----------
    images
        One row per image: image, subset, annotated, height, width, depth, dtype, minimum, maximum,
        range (between the percentiles 1 and 99.8 of the plane that stands for it), saturated and
        black (shares of pixels), noise_sigma; of annotated ones objects, median_area, tiny,
        touching, in_pieces (numbers of objects) and ignored (share of pixels).
    noise
        The structure of the noise.
    findings
        Problems first, then warnings, then notes.
    """

    images: pd.DataFrame
    noise: NoiseStructure
    findings: list[Finding]


def check_dataset(prepared: PreparedData, noisy: Path, split: pd.DataFrame) -> DataChecks:
    """Check a prepared dataset, one image at a time in memory.

    Parameters
    ----------
    prepared
        Its manifest, its masks, and what was left out of it.
    noisy
        Folder of the images that methods read, ``{image}.tif`` each.
    split
        Table of :func:`~denoiseg_flow.data.splitting.split`: columns image, subset and annotated.
    """
    rows, contents, thumbnails = [], {}, {}
    # Noisy images are float32 whatever the user's own were.
    dtypes = prepared.read_manifest().set_index("image")["dtype"]
    for row in split.itertuples():
        path = image_file(noisy, row.image)
        image = open_channels(path)
        plane, depth = middle_plane(image[0]), image.shape[1:-2]
        measured = {"image": row.image, "subset": row.subset, "annotated": int(row.annotated)}
        measured |= dict(zip(("height", "width"), plane.shape, strict=True))
        measured |= {"depth": depth[0] if depth else 1, "dtype": dtypes[row.image]}
        measured |= _intensities(image, plane)
        if row.annotated:
            measured |= _objects(np.asarray(open_image(prepared.mask(row.image))))
        rows.append(measured)
        contents[row.image] = hashlib.sha256(np.ascontiguousarray(image)).digest()
        thumbnails[row.image] = _thumbnail(plane)
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    noise = noise_of_files([image_file(noisy, name) for name in table["image"]])
    found = [
        *left_out(prepared.folder),
        *_about_images(table),
        *_about_masks(table),
        *_about_twins(table, contents, thumbnails),
        *_about_noise(table, noise),
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
    """Count the objects of a mask, and those that are unusual."""
    objects, ignored = np.maximum(labels, 0), labels < 0
    values, areas = np.unique(objects[objects > 0], return_counts=True)
    pieces = ski.measure.label(objects)
    _, first = np.unique(pieces, return_index=True)
    owners = Counter(objects.ravel()[first].tolist())
    # Scribbles are thin and interrupted, whatever the objects are.
    whole = not ignored.any()
    return {
        "objects": len(values),
        "median_area": float(np.median(areas)) if len(areas) else np.nan,
        "tiny": whole * int((areas < TINY).sum()),
        "touching": len(_touching(objects)),
        "in_pieces": whole * sum(count > 1 for label, count in owners.items() if label > 0),
        "ignored": float(ignored.mean()),
        # As a binary mask has, whatever the objects are.
        "one_label": int(whole and len(values) == 1 and owners[int(values[0])] > 1),
    }


def _touching(objects: np.ndarray) -> set[int]:
    """The objects that have a pixel beside one of another object, diagonally too."""
    found: set[int] = set()
    both = (neighbours(objects.ndim, corners) for corners in (False, True))
    for first, second in chain(*both):
        one, other = objects[first], objects[second]
        met = (one > 0) & (other > 0) & (one != other)
        found |= set(one[met].tolist()) | set(other[met].tolist())
    return found


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Means over the cells of a grid, of mean 0 and length 1 (all 0 if the image is constant)."""
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
    others = f", and {len(shapes) - 1} other sizes" if len(shapes) > 1 else ""
    yield Finding(
        "note",
        "images",
        f"{count(len(table), 'image')} of {size}{others}, "
        f"{table['annotated'].sum()} of "
        f"them annotated; grey levels from {table['minimum'].min():g} to "
        f"{table['maximum'].max():g}.",
    )
    types = Counter(table["dtype"])
    if len(types) > 1:
        listed = ", ".join(f"{count} of {name}" for name, count in types.most_common())
        rare = table.loc[table["dtype"] != types.most_common(1)[0][0], "image"]
        yield Finding(
            "warning",
            "pixel types",
            f"The images have different pixel types ({listed}). One network normalises all of them "
            "alike: export them in the same way.",
            tuple(rare),
        )
    middle = table["range"].median()
    unlike = (table["range"] > OTHER_RANGE * middle) | (table["range"] < middle / OTHER_RANGE)
    if unlike.any():
        yield Finding(
            "warning",
            "intensities",
            f"{count(unlike.sum(), 'image')} with a range of grey levels {OTHER_RANGE} times "
            f"larger or smaller than that of most ({middle:g}). One network normalises all of them "
            "alike: check the exposure and the export.",
            tuple(table.loc[unlike, "image"]),
        )
    saturated = table["saturated"] > SATURATED
    if saturated.any():
        yield Finding(
            "warning",
            "saturation",
            f"In {count(saturated.sum(), 'image')}, more than {SATURATED:.0%} of the pixels have "
            "the largest grey level: overexposed; what was brighter cannot be restored.",
            tuple(table.loc[saturated, "image"]),
        )
    black = (table["black"] > BLACK) & (table["noise_sigma"] > 0)
    if black.any():
        yield Finding(
            "warning",
            "black level",
            f"In {count(black.sum(), 'image')}, more than {BLACK:.0%} of the pixels have the "
            "smallest grey level: the dark half of the noise was cut off, so that its mean is not "
            "zero and denoised images come out too bright there. Export without subtracting the "
            "background.",
            tuple(table.loc[black, "image"]),
        )


def _about_masks(table: pd.DataFrame) -> Iterator[Finding]:
    annotated = table[table["annotated"] == 1]
    if annotated.empty:
        return
    total = int(annotated["objects"].sum())
    empty = annotated.loc[annotated["objects"] == 0, "image"]
    negative = (
        f"; {count(len(empty), 'image')} with none, which is taken for true" if len(empty) else ""
    )
    ignored = annotated["ignored"].mean()
    left_out = f"; {ignored:.1%} of their pixels are ignored" if ignored else ""
    yield Finding(
        "note",
        "objects",
        f"{count(total, 'object')} in {count(len(annotated), 'annotated image')}, of "
        f"{annotated['median_area'].median():.0f} pixels in the middle{negative}{left_out}.",
    )
    binary = annotated.loc[annotated["one_label"] == 1, "image"]
    if len(binary):
        yield Finding(
            "problem",
            "binary masks",
            f"{count(len(binary), 'mask')} with one number for several regions, as if binary: all "
            "objects of such an image count as one. Set 'binary_masks: connected_components'.",
            tuple(binary),
        )
    for column, topic, words in [
        ("in_pieces", "objects in pieces", "of several regions: did two get the same number?"),
        ("tiny", "tiny objects", f"of fewer than {TINY} pixels: are they slips of the brush?"),
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
            f"{touching / total:.0%} of the objects touch another one. 'instances: watershed' of "
            "the recipe parts what the border class does not.",
        )


def _about_twins(
    table: pd.DataFrame, contents: dict[str, bytes], thumbnails: dict[str, np.ndarray]
) -> Iterator[Finding]:
    """Images that are there twice, above all where one of them is for testing."""
    subset = dict(zip(table["image"], table["subset"], strict=True))
    pairs = list(_twins(table, contents, thumbnails))
    leaks = [pair for pair in pairs if _leaks(*map(subset.get, pair))]
    if leaks:
        yield Finding(
            "problem",
            "leakage",
            f"{count(len(leaks), 'pair')} of a test image and the same, or nearly the same, among "
            f"the images for training or validation ({_named(leaks)}): scores of these say nothing "
            "about new images. Remove one of each pair.",
            tuple(dict.fromkeys(name for pair in leaks for name in pair)),
        )
    rest = [pair for pair in pairs if pair not in leaks]
    if rest:
        yield Finding(
            "warning",
            "duplicates",
            f"{count(len(rest), 'pair')} of the same, or nearly the same image ({_named(rest)}).",
            tuple(dict.fromkeys(name for pair in rest for name in pair)),
        )


def _twins(
    table: pd.DataFrame, contents: dict[str, bytes], thumbnails: dict[str, np.ndarray]
) -> Iterator[tuple[str, str]]:
    """Pairs of images of the same size with the same content, or the same thumbnail."""
    for _, group in table.groupby(["height", "width"], sort=False):
        names = list(group["image"])
        stacked = np.stack([thumbnails[name] for name in names])
        for place, name in enumerate(names[:-1]):
            alike = stacked[place + 1 :] @ stacked[place] > SAME
            same = [contents[other] == contents[name] for other in names[place + 1 :]]
            for index in np.flatnonzero(alike | same):
                yield name, names[place + 1 + index]


def _leaks(one: str, other: str) -> bool:
    """Whether an image of one subset is scored by a network that may have seen the other."""
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
        f"Standard deviation of the noise, estimated: {sigma.median():.3g} grey levels "
        f"({sigma.min():.3g} to {sigma.max():.3g}), {share:.1%} of the range of an image"
        + (", as if neighbouring pixels were independent, which they are not." if alike else "."),
    )
    nearest = f"{noise.along_x[0]:.2f} along x, {noise.along_y[0]:.2f} along y"
    match noise.kind:
        case "independent":
            yield Finding(
                "note",
                "noise structure",
                f"The noise is independent from pixel to pixel (correlation of neighbours "
                f"{nearest}): Noise2Void, Noise2Self and DenoiSeg may be used as they are.",
            )
        case "x" | "y":
            mask = noise.struct_mask
            yield Finding(
                "warning",
                "noise structure",
                f"The noise is structured along {noise.kind} (correlation of neighbours "
                f"{nearest}): Noise2Void, Noise2Self and DenoiSeg would take it for part of the "
                f"image. Use the method structn2v with 'struct_mask: {mask}'.",
            )
        case "both":
            yield Finding(
                "warning",
                "noise structure",
                f"Neighbouring pixels are alike in both directions (correlation {nearest}): the "
                "images have hardly any noise, or were blurred, resized or compressed, so that "
                "denoising from hidden pixels will leave the noise there is. Use the images as the "
                "camera gave them, if you can.",
            )
        case _:
            yield Finding(
                "note", "noise structure", "No noise was found: the flat parts do not vary."
            )
