"""The command ``denoiseg-flow``: a trained model on new images, without the workflow."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from denoiseg_flow import __version__
from denoiseg_flow.application import apply_model
from denoiseg_flow.data.folders import find_images
from denoiseg_flow.devices import select_device, usable_cores
from denoiseg_flow.logs import sentence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        images = find_images(options.images)
        device = select_device(options.device, usable_cores())
        apply_model(options.model, images, options.out, device)
    except Exception as error:
        print(sentence(error), file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="denoiseg-flow",
        description="Denoise and segment new microscopy images with a trained model.",
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
        "images", type=Path, nargs="+", help="grey 2D images (tif, png), or folders of them"
    )
    predict.add_argument("--out", type=Path, required=True, help="folder to write to")
    predict.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="where to compute; auto takes a GPU if there is one (default: auto)",
    )
    return parser
