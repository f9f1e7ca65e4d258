"""The command ``denoiseg-flow``: use a trained model without the workflow."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from denoiseg_flow import findings
from denoiseg_flow.data.files.regions import Reading
from denoiseg_flow.data.files.units import micrometres
from denoiseg_flow.data.folders import find_images, left_out
from denoiseg_flow.deployment.bioimageio import export_model
from denoiseg_flow.deployment.ledger import FORMS
from denoiseg_flow.deployment.object_tables import refuse_failures
from denoiseg_flow.deployment.predict_images import predict_images
from denoiseg_flow.jobs.devices import select_device, usable_cores
from denoiseg_flow.jobs.logs import sentence
from denoiseg_flow.models.model_file import describe_model, existing_model
from denoiseg_flow.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        options.run(options)
    except Exception as error:
        print(sentence(error), file=sys.stderr)
        return 1
    return 0


def _predict(options: argparse.Namespace) -> None:
    images = find_images(options.images)
    findings.log(left_out(options.images), "predict")
    device = select_device(options.device, usable_cores())
    reading = _reading(options, dimensions=2 if options.planes else None)
    failed = predict_images(
        options.model, images, options.out, device, reading, options.format, options.tile
    )
    refuse_failures(failed, len(images), options.out)


def _describe(options: argparse.Namespace) -> None:
    told = describe_model(existing_model(options.model))
    print(yaml.safe_dump(told, sort_keys=False, allow_unicode=True), end="")


def _export(options: argparse.Namespace) -> None:
    export_model(
        options.model,
        options.package,
        options.image,
        title=options.title,
        authors=options.author,
        licence=options.license,
        reading=_reading(options),
    )


def _reading(options: argparse.Namespace, dimensions: int | None = None) -> Reading:
    """Return how the files of a command are read, see :func:`_add_reading`."""
    size = options.pixel_size and tuple(options.pixel_size)
    return Reading(options.axes, dimensions, options.channel, size)


def _add_reading(command: argparse.ArgumentParser, channel: str) -> None:
    """Let a command ask how image files are to be read; ``channel`` says what that one is for."""
    command.add_argument(
        "--axes",
        help="what the dimensions of the files are, such as TZYX (default: what they say)",
    )
    command.add_argument("--channel", type=_number_or_name, help=channel)
    command.add_argument(
        "--pixel-size",
        type=_micrometres,
        nargs="+",
        metavar="UM",
        help="micrometres from pixel to pixel along z, y and x, or y and x (default: of the files)",
    )


def _number_or_name(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _micrometres(text: str) -> float:
    length = micrometres(text, "um")
    if length is None:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no size of a pixel: write a number of micrometres, such as 0.25"
        )
    return length


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="denoiseg-flow",
        description="Use a trained model on new microscopy images, or hand it to other programs.",
    )
    parser.add_argument("--version", action="version", version=f"denoiseg-flow {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    predict = commands.add_parser(
        "predict",
        help="use a model on images",
        description=(
            "Write denoised images, instance labels, overlays and a table of all objects. "
            "Images that are done already are left alone."
        ),
    )
    predict.add_argument("model", type=Path, help="a model.pt of the workflow")
    predict.add_argument(
        "images", type=Path, nargs="+", help="images (tif, png, OME-Zarr), or folders of them"
    )
    predict.add_argument("--out", type=Path, required=True, help="folder to write to")
    predict.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="where to compute; auto takes a GPU if there is one (default: auto)",
    )
    _add_reading(
        predict, "the channel to predict, by number (from 0) or name; others stay as they are"
    )
    predict.add_argument(
        "--planes", action="store_true", help="look at each plane of a stack by itself"
    )
    predict.add_argument(
        "--format",
        choices=FORMS,
        default="tif",
        help="of denoised images and labels, tif being OME-TIFF (default: tif)",
    )
    predict.add_argument(
        "--tile", type=int, metavar="SIDE", help="pixels a side that are predicted at once"
    )
    predict.set_defaults(run=_predict)
    describe = commands.add_parser(
        "describe",
        help="tell what a model is",
        description="Print what a model is, how it was trained, and on what, as YAML.",
    )
    describe.add_argument("model", type=Path, help="a model.pt of the workflow")
    describe.set_defaults(run=_describe)
    export = commands.add_parser(
        "export",
        help="write a model as a package for other programs",
        description="Write a model as a package of the BioImage Model Zoo.",
    )
    export.add_argument("model", type=Path, help="a model.pt of the workflow")
    export.add_argument("package", type=Path, help="the zip file to write")
    export.add_argument(
        "--image",
        type=Path,
        required=True,
        help=(
            "an image (tif, png, OME-Zarr) that the model is for; the centre of its first plane or "
            "volume becomes the test image"
        ),
    )
    _add_reading(export, "the channel that the model is for, by number (from 0) or name")
    export.add_argument("--title", help="name of the package (default: from method and dataset)")
    export.add_argument(
        "--author", action="append", default=[], help="who trained the model; may be repeated"
    )
    export.add_argument("--license", help="SPDX identifier, such as CC-BY-4.0 (default: none)")
    export.set_defaults(run=_export)
    return parser
