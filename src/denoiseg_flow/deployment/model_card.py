"""Documentation of an exported model: README text, tags, citations and metadata."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.methods.classes import DISTANCE
from denoiseg_flow.methods.definition import Method, as_dict
from denoiseg_flow.methods.instances import SEED_LEVELS, STEP
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.methods.pretrained import PRETRAINED
from denoiseg_flow.methods.references import CITATIONS
from denoiseg_flow.models.model import TrainedModel, denoises, purpose
from denoiseg_flow.version import __version__

_NO_TITLE_CHARACTER = re.compile(r"[^A-Za-z0-9_+() -]+")


def title(model: TrainedModel) -> str:
    """Return a name of at most 128 characters that the BioImage Model Zoo allows."""
    identity = model.identity
    words = f"{identity['method']} of {identity['dataset']} {identity['noise']}"
    return _NO_TITLE_CHARACTER.sub(" ", f"{words} (seed {identity['seed']})")[-128:]


def channel_names(layout: Layout, known: Metadata) -> list[str]:
    """Return the names of the channels of a model: those of the image, or numbers."""
    if len(known.channels) == layout.channels and len(set(known.channels)) == layout.channels:
        return list(known.channels)
    return [f"channel {number}" for number in range(layout.channels)]


def _images(layout: Layout) -> str:
    """Describe the images that a model is for."""
    kind = "2D images" if layout.dimensions == 2 else "volumes"
    if layout.colour:
        return f"{kind} in colour"
    return f"grey {kind}" if layout.channels == 1 else f"{kind} with {layout.channels} channels"


def description(models: Sequence[TrainedModel]) -> str:
    """Describe in a few sentences what a chain of models does and how it was trained."""
    run, init = models[-1].identity, models[-1].method.init
    start = f" It started from '{init}', trained on simulated images." if init in PRETRAINED else ""
    if before := models[-1].origin.get("init"):
        name = before.get("method", Path(before["file"]).name)
        start = f" It started from the model '{name}' (SHA-256 {before['sha256'][:12]})."
    return (
        f"{purpose(models)} {_images(models[-1].layout)}. Method {run['method']}, trained on "
        f"dataset {run['dataset']} at noise level {run['noise']} with {run['n_annotated']} "
        f"annotated images (seed {run['seed']}).{start} Exported by DenoiSeg-Flow {__version__}."
    )


def tags(models: Sequence[TrainedModel]) -> list[str]:
    """Return the tags of the package in the BioImage Model Zoo."""
    applies = {
        f"{models[-1].layout.dimensions}d": True,
        "pytorch": True,
        "unet": any(model.method.network.startswith("unet") for model in models),
        "denoising": denoises(models),
        "semantic-segmentation": models[-1].method.segments,
        "instance-segmentation": models[-1].method.segments,
        "denoiseg-flow": True,
    }
    return [tag for tag, wanted in applies.items() if wanted]


def plain_record(models: Sequence[TrainedModel]) -> dict[str, Any]:
    """Return identity, method, recipe and calibration of each model of a chain, for YAML."""
    record = {
        "version": __version__,
        "models": [
            {
                "identity": model.identity,
                "method": as_dict(model.method),
                "recipe": as_dict(model.recipe),
                "normalisation": model.normalisation.plain(),
                "threshold": asdict(model.threshold) if model.threshold else None,
            }
            for model in models
        ],
    }
    return json.loads(json.dumps(record))  # tuples become lists


def citations(models: Sequence[TrainedModel]) -> list[dict[str, str]]:
    """Return text and DOI of the publications behind the methods of a chain."""
    wanted = {number for model in models for number in _sources(model.method)}
    return [
        {"text": each.text, "doi": _doi(each.url)}
        for each in CITATIONS
        if any(each.url.endswith(number) for number in wanted)
    ]


def _sources(method: Method) -> list[str]:
    """Return the ends of the URLs of the publications behind a method."""
    blind = method.target == "blind_spot"
    conditions = {
        "2005.02987": method.denoises and method.segments,
        "1811.10980": blind and not method.masks_grid,
        "2211.08512": method.network == "unet_blurpool" or (blind and method.masking == "median"),
        "ISBI45749.2020.9098336": blind and method.struct_mask is not None,
        "1901.11365": method.masks_grid or method.network == "dncnn",
        "1803.04189": method.target == "second_noisy",
        "1608.04667": method.network == "autoencoder",
        "1505.04597": method.network.startswith("unet"),
    }
    return [number for number, applies in conditions.items() if applies]


def _doi(url: str) -> str:
    return url.replace("https://arxiv.org/abs/", "10.48550/arXiv.").replace("https://doi.org/", "")


def readme(name: str, models: Sequence[TrainedModel], known: Metadata) -> str:
    """Return the documentation of the package, in Markdown.

    Parameters
    ----------
    name
        Heading.
    models
        A chain of models; the last one yields the result.
    known
        Metadata of the test image.
    """
    last = models[-1]
    parts = [f"# {name}", description(models), _tensors(models, known)]
    if last.method.segments:
        parts.append(_instances(last))
    parts += [_differences(models), _training(models), _validation(last)]
    return "\n\n".join(parts) + "\n"


def _tensors(models: Sequence[TrainedModel], known: Metadata) -> str:
    layout = models[0].layout
    shape, image = ("z, y, x", "volume") if layout.dimensions == 3 else ("y, x", "image")
    noisy = f"- `noisy`: the {image} as recorded, {_recorded(models[0], known)}"
    spacing = known.spacing()
    if spacing:
        size = " x ".join(f"{step:g}" for step in spacing)
        noisy += f" The {_pixels(layout)} of the test image measure {size} micrometres ({shape})."
    axes = f"The axes of every tensor are batch, channel, {shape}."
    lines = ["## Input and output", "", axes, "", noisy]
    if denoises(models):
        lines.append(f"- `denoised`: the denoised {image}, on the same intensity scale.")
    if models[-1].method.segments:
        lines.append(
            "- `probabilities`: probabilities of the classes background, foreground (inside of "
            "objects) and border, in this order; their sum is 1."
        )
        if models[-1].n_maps > DISTANCE:
            lines.append(
                "- `distance`: relative distance from the background, about 1 in the middle of an "
                "object."
            )
    if len(models) > 1:
        steps = ", then ".join(f"`{model.method.name}`" for model in models)
        lines += ["", f"The model is a chain: {steps}. Each reads the output of the previous one."]
    flat = [f"`{model.method.name}`" for model in models if model.layout.plane_by_plane]
    if flat:
        lines += ["", f"Each z-slice of a volume is processed separately by {' and '.join(flat)}."]
    for model in models:
        if size := model.layout.size_read:
            back = "interpolates" if model.layout.downscale > 1 else "averages"
            lines += ["", f"`{model.method.name}` reads images {size}, and {back} its output."]
    return "\n".join(lines)


def _recorded(model: TrainedModel, known: Metadata) -> str:
    """Describe the channels of the input and their normalisation."""
    scales = model.normalisation.channels()
    if len(scales) == 1:
        ((mean, std),) = scales
        return (
            "one channel. Do not rescale its intensities: the preprocessing subtracts the mean of "
            f"the training images ({mean:g}) and divides by their standard deviation ({std:g})."
        )
    channels = ", ".join(
        f"{name} (mean {mean:g}, standard deviation {std:g})"
        for name, (mean, std) in zip(channel_names(model.layout, known), scales, strict=True)
    )
    return (
        f"with {len(scales)} channels in this order: {channels}. Do not rescale their intensities: "
        "the preprocessing subtracts from each channel its mean in the training images and divides "
        "by its standard deviation."
    )


def _pixels(layout: Layout) -> str:
    return "voxels" if layout.dimensions == 3 else "pixels"


def _instances(model: TrainedModel) -> str:
    assert model.threshold is not None
    threshold, prominence = model.threshold.value, model.threshold.prominence
    instances = model.recipe.instances
    sides = "faces" if model.layout.dimensions == 3 else "sides"
    if instances == "components":
        way = (
            "Each connected region of foreground probability above the threshold is an object; "
            f"{_pixels(model.layout)} are connected by their {sides}:\n\n```python\n"
            "from scipy import ndimage\n\n"
            f"labels, count = ndimage.label(probabilities[1] > {threshold:g})\n```"
        )
    else:
        height = {"watershed": "p(foreground) - p(border)", "distance": "the distance"}[instances]
        lowest = SEED_LEVELS[instances] + prominence
        way = (
            f"Objects are found by a watershed of {height}, from the peaks downwards, within "
            f"p(foreground) > {threshold:g}. Peaks above {lowest:g} with a prominence above "
            f"{prominence:g} are seeds (heights are rounded down to multiples of {STEP:g}); a seed "
            f"includes the pixels around its peak that are at most {prominence:g} lower. "
            "Foreground without a seed is discarded."
        )
    return (
        f"## Instances\n\n{way}\n\nTo write them, run `denoiseg-flow predict` with the `model.pt` "
        "of this package."
    )


def _differences(models: Sequence[TrainedModel]) -> str:
    differences = [
        "Within the declared halo at the borders of the image, results depend on how the program "
        "pads the image: DenoiSeg-Flow mirrors it, up to the next length that the network accepts.",
    ]
    denoisers = [model for model in models if model.method.denoises]
    if any(model.recipe.preserve_mean and model.method.target != "clean" for model in denoisers):
        differences.append(
            "DenoiSeg-Flow shifts each channel of a denoised image to the mean of the noisy one. "
            "The package does not, because a program may apply it to one tile of an image."
        )
    if any(model.method.masks_grid for model in models):
        differences.append(
            "DenoiSeg-Flow can predict each pixel while it is masked (J-invariant). The package "
            "cannot; its `denoised` is predicted without masking."
        )
    if any(model.recipe.test_time_augmentation for model in models):
        differences.append(
            "As in DenoiSeg-Flow, results are means over eight orientations of the image "
            "(test-time augmentation), which takes eight times as long."
        )
    if any(model.multiscale for model in models):
        differences.append(
            "As in DenoiSeg-Flow, the network also segments images of half the size. Both results "
            "are combined, each where the network is more certain."
        )
    heading = "## Compared with DenoiSeg-Flow"
    return "\n".join([heading, "", *(f"- {each}" for each in differences)])


def _training(models: Sequence[TrainedModel]) -> str:
    facts = {
        key: " / ".join(str(model.identity.get(key, "")) for model in models)
        for key in ("dataset", "noise", "method", "n_annotated", "seed")
    }
    facts["exported by"] = f"DenoiSeg-Flow {__version__}"
    return "\n".join([
        "## Training",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in facts.items()),
        "",
        "For all fields of method and recipe, see `config: denoiseg_flow` in `rdf.yaml`.",
    ])  # fmt: skip


def _validation(model: TrainedModel) -> str:
    lines = ["## Validation", ""]
    size = "voxel size" if model.layout.dimensions == 3 else "magnification"
    if model.threshold:
        lines += [
            f"With the threshold {model.threshold.value:g}, the average precision on "
            f"{model.threshold.n_images} annotated images, each predicted by a network that was "
            f"not trained on it, is {model.threshold.average_precision:.3f} at IoU > 0.5. If the "
            "threshold was chosen on these images, that is slightly optimistic.",
            "",
        ]
    lines += [
        f"Use the model on images like its training images: same microscope settings, {size} and "
        "kind of object. Before you trust it on other images, annotate a few of them and compare. "
        "`bioimageio test` checks whether a program reproduces the results of DenoiSeg-Flow on the "
        "test image of this package.",
    ]
    return "\n".join(lines)
