"""The command ``denoiseg-flow``: start studies anywhere, and use trained models."""

import argparse
import logging
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TypeAlias

import yaml

from denoiseg_flow import findings
from denoiseg_flow.data.files.regions import Reading
from denoiseg_flow.data.files.units import micrometres
from denoiseg_flow.data.folders import about_files, find_images
from denoiseg_flow.deployment.annotation_round import AUTO, NEXT, WHOLE, finished_runs, write_round
from denoiseg_flow.deployment.bioimageio import export_model
from denoiseg_flow.deployment.ledger import FORMS
from denoiseg_flow.deployment.object_tables import refuse_failures
from denoiseg_flow.deployment.predict_images import predict_images
from denoiseg_flow.deployment.scaling import NORMALISE, Scaling
from denoiseg_flow.jobs.devices import select_device, usable_cores
from denoiseg_flow.jobs.logs import sentence
from denoiseg_flow.launch import init, run
from denoiseg_flow.models.model_file import describe_model, existing_model
from denoiseg_flow.reporting.tables.statistics import read_metrics_csv
from denoiseg_flow.reporting.tables.verdicts import best_run
from denoiseg_flow.status import read_status, show
from denoiseg_flow.study.grid import LABELS
from denoiseg_flow.study.provenance import read_config
from denoiseg_flow.version import __version__

_RUN = "run"  # the command whose arguments are those of Snakemake

# Quoted, because it takes no parameters at run time.
_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    if isinstance(sys.stdout, TextIOWrapper):  # consoles of Windows may lack letters, as of names
        sys.stdout.reconfigure(errors="backslashreplace")
    options = read_arguments(sys.argv[1:] if arguments is None else arguments)
    if options.command is None:
        _parser().print_help()
        return 0
    if options.command != _RUN:  # Snakemake shows its messages itself; they would appear twice
        logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        print(sentence(error), file=sys.stderr)
        return 1
    return 0


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; those of ``run`` are kept for Snakemake, as ``arguments``."""
    if _RUN in arguments[:1] and not {"-h", "--help"} & set(arguments):
        return argparse.Namespace(command=_RUN, run=_run, arguments=arguments[1:])
    return _parser().parse_args(arguments)


def _predict(options: argparse.Namespace) -> None:
    images = find_images(options.images)
    findings.log(about_files(options.images), "predict")
    device = select_device(options.device, usable_cores())
    reading = _reading(options, dimensions=2 if options.planes else None)
    scaling = Scaling.of(options.normalise, options.rescale)
    failed = predict_images(
        options.model,
        images,
        options.out,
        device,
        reading,
        scaling,
        options.format,
        options.tile,
    )
    refuse_failures(failed, len(images), options.out)


def _init(options: argparse.Namespace) -> None:
    written = init(options.folder, options.example)
    print(f"written: {', '.join(map(str, written))}")
    if not options.example:
        print("Put your images into images/, and the masks that you have into masks/. Then")
    print(f"  cd {shlex.quote(str(options.folder))} && denoiseg-flow run")


def _run(options: argparse.Namespace) -> None:
    run(options.arguments)


def _status(options: argparse.Namespace) -> None:
    def print_status() -> None:
        print(show(read_status(options.study), str(options.study.resolve())), flush=True)

    print_status()
    while options.watch:
        try:
            time.sleep(options.watch)
        except KeyboardInterrupt:
            return
        # Back to the top left of an empty screen.
        print("\033[H\033[2J" if sys.stdout.isatty() else "")
        print_status()


def _describe(options: argparse.Namespace) -> None:
    description = describe_model(existing_model(options.model))
    print(yaml.safe_dump(description, sort_keys=False, allow_unicode=True), end="")


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


def _annotate_next(options: argparse.Namespace) -> None:
    study, out = options.study, options.out
    config = read_config(study)
    runs = finished_runs(study, config, options.dataset, options.noise, options.method)
    metrics = study / "tables/metrics.csv"
    run = best_run(read_metrics_csv(metrics), runs, LABELS) if metrics.exists() else runs[0]
    assert run is not None
    device = select_device(options.device, usable_cores())
    suggested = write_round(study, config, run, out, options.n, options.crop, device)
    print(f"{findings.count(len(suggested), 'image')} to annotate, as suggested by {run.folder}:\n")
    print((out / NEXT).read_text(encoding="utf-8"), end="")


def _reading(options: argparse.Namespace, dimensions: int | None = None) -> Reading:
    """Return how to read the files of a command, see :func:`_add_reading`."""
    size = options.pixel_size and tuple(options.pixel_size)
    return Reading(options.axes, dimensions, options.channel, size)


def _number_or_name(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _side(text: str) -> int | str:
    side = _number_or_name(text)
    if side == 0 or (isinstance(side, str) and side not in (AUTO, WHOLE)):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not the side of a crop: give pixels, such as 128, or '{WHOLE}'"
        )
    return side


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no time: give seconds, such as 5")
    return seconds


def _micrometres(text: str) -> float:
    length = micrometres(text, "um")
    if length is None:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a pixel size: give micrometres as a number, such as 0.25"
        )
    return length


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="denoiseg-flow",
        description="Denoise and segment microscopy images of which few are annotated.",
        epilog="denoiseg-flow COMMAND --help lists the options of a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"denoiseg-flow {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    _add_init(commands)
    _add_run(commands)
    _add_status(commands)
    _add_predict(commands)
    _add_describe(commands)
    _add_export(commands)
    _add_annotate_next(commands)
    return parser


def _add_command(
    commands: _Commands,
    run: Callable[[argparse.Namespace], None],
    name: str,
    summary: str,
    description: str,
    examples: str,
) -> argparse.ArgumentParser:
    """Add a command that calls ``run``."""
    command = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, help="trained model of the workflow (model.pt)")


def _add_init(commands: _Commands) -> None:
    command = _add_command(
        commands,
        _init,
        "init",
        "write a config for your own images",
        "Write config.yaml, with explanations, and folders for your images and masks. Nothing is\n"
        "written over.",
        """\
  denoiseg-flow init my_study
  denoiseg-flow init try_it --example
""",
    )
    command.add_argument("folder", type=Path, help="folder of the study; new, or without a config")
    command.add_argument(
        "--example", action="store_true", help="with eight real images of nuclei and their masks"
    )


def _add_run(commands: _Commands) -> None:
    _add_command(
        commands,
        _run,
        _RUN,
        "run the study in this folder, with Snakemake",
        "Run Snakemake on the study in this folder. All arguments are those of Snakemake. The\n"
        "workflow is added, and config.yaml and all cores unless you name others.",
        """\
  denoiseg-flow run
  denoiseg-flow run --dry-run
  denoiseg-flow run --cores 8 --config 'grid={seeds: [1, 2, 3]}'
  denoiseg-flow run predict --config 'predict={images: new_images}'
""",
    )


def _add_status(commands: _Commands) -> None:
    command = _add_command(
        commands,
        _status,
        "status",
        "show what is done, running, failed and waiting",
        "Show how far a study is: runs by dataset, noise level and method, the epoch and the\n"
        "remaining time of running trainings, and why others failed. Reads only, also on another\n"
        "machine with the same folder.",
        """\
  denoiseg-flow status
  denoiseg-flow status my_study --watch
""",
    )
    command.add_argument(
        "study",
        type=Path,
        nargs="?",
        default=Path(),
        help="folder of the study, or of its results (default: this folder)",
    )
    command.add_argument(
        "--watch",
        type=_seconds,
        nargs="?",
        const=5.0,
        metavar="SECONDS",
        help="show it again every few seconds (default: 5) until Ctrl-C",
    )


def _add_predict(commands: _Commands) -> None:
    command = _add_command(
        commands,
        _predict,
        "predict",
        "denoise and segment new images",
        "Denoise and segment new images with a trained model. Writes denoised images, instance\n"
        "labels, overlays and a table of all objects. Skips images that are already predicted.",
        """\
  denoiseg-flow predict model.pt new_images --out predicted
  denoiseg-flow predict model.pt stack.tif --out predicted --axes ZYX --pixel-size 0.5 0.1 0.1
  denoiseg-flow predict model.pt 40x 20x --out predicted --normalise image --rescale pixel-size
  denoiseg-flow predict model.pt slide.ome.zarr --out predicted --channel DAPI --format ome.zarr
""",
    )
    _add_model(command)
    command.add_argument(
        "images", type=Path, nargs="+", help="images (tif, png, OME-Zarr) or folders of images"
    )
    output = command.add_argument_group("output")
    output.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder for the results"
    )
    output.add_argument(
        "--format",
        choices=FORMS,
        default="tif",
        help="file format of denoised images and labels: OME-TIFF or OME-Zarr (default: tif)",
    )
    reading = _add_reading(
        command, "channel to predict, by number (from 0) or name; the others stay unchanged"
    )
    reading.add_argument(
        "--planes", action="store_true", help="predict each z-slice of a stack independently"
    )
    scaling = command.add_argument_group("images unlike those of the training")
    scaling.add_argument(
        "--normalise",
        choices=NORMALISE,
        default="training",
        help=(
            "grey levels: like those of the training images, or on another scale, so that the mean "
            "and standard deviation of each image are matched to them (default: training)"
        ),
    )
    scaling.add_argument(
        "--rescale",
        nargs="+",
        metavar="FACTOR",
        help=(
            "resample what the network reads by this factor, by factors along z, y and x, or "
            "('pixel-size') to the pixel size of the training images; results have the size of the "
            "image"
        ),
    )
    computing = _add_computing(command)
    computing.add_argument(
        "--tile",
        type=int,
        metavar="SIDE",
        help="tile size in pixels; smaller tiles need less memory",
    )


def _add_describe(commands: _Commands) -> None:
    command = _add_command(
        commands,
        _describe,
        "describe",
        "show how a model was trained",
        "Print the method, recipe, training data and axes of a model as YAML.",
        """\
  denoiseg-flow describe results/runs/nuclei/n20/denoiseg/annotated10/seed0/model.pt
""",
    )
    _add_model(command)


def _add_export(commands: _Commands) -> None:
    command = _add_command(
        commands,
        _export,
        "export",
        "export a model for other programs",
        "Export a model as a package of the BioImage Model Zoo, for ilastik, deepImageJ, etc.",
        """\
  denoiseg-flow export model.pt nuclei.zip --image data/images/1.tif --license CC-BY-4.0
""",
    )
    _add_model(command)
    command.add_argument("package", type=Path, help="zip file to write")
    command.add_argument(
        "--image",
        type=Path,
        required=True,
        metavar="FILE",
        help=(
            "image like those the model was trained on (tif, png, OME-Zarr); the centre of its "
            "first plane or volume becomes the test image of the package"
        ),
    )
    _add_reading(command, "channel that the model predicts, by number (from 0) or name")
    metadata = command.add_argument_group("description of the package")
    metadata.add_argument("--title", help="title (default: from method and dataset)")
    metadata.add_argument(
        "--author", action="append", default=[], help="who trained the model; can be repeated"
    )
    metadata.add_argument("--license", help="SPDX identifier, such as CC-BY-4.0 (default: none)")


def _add_annotate_next(commands: _Commands) -> None:
    command = _add_command(
        commands,
        _annotate_next,
        "annotate-next",
        "write what to annotate next, with predicted masks to correct",
        "Write the images or crops whose annotation is expected to help most, with predicted\n"
        "masks to correct, and the config of the next study, which starts from the model of this\n"
        "one.",
        """\
  denoiseg-flow annotate-next results --out round1
  denoiseg-flow annotate-next results --out round2 --n 12 --crop 256 --method denoiseg_pretrained
""",
    )
    command.add_argument(
        "study", type=Path, help="folder of the results of a study, such as results"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="new folder for the round"
    )
    command.add_argument(
        "--n", type=int, default=8, metavar="N", help="number of images or crops (default: 8)"
    )
    command.add_argument(
        "--crop",
        type=_side,
        default=AUTO,
        metavar="SIDE",
        help=(
            "side of the crops in pixels, or 'image' for whole images (default: crops about 8 "
            "objects wide, if the images are much larger)"
        ),
    )
    run = command.add_argument_group("run that suggests")
    run.add_argument("--dataset", help="dataset (default: the first of the study)")
    run.add_argument("--noise", help="noise level (default: the first of the study)")
    run.add_argument("--method", help="method (default: the one with the highest AP)")
    _add_computing(command)


def _add_computing(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    computing = command.add_argument_group("computing")
    computing.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="compute device; auto uses a GPU if one is available (default: auto)",
    )
    return computing


def _add_reading(command: argparse.ArgumentParser, channel: str) -> argparse._ArgumentGroup:
    """Add options for files whose metadata is missing or wrong; ``channel`` is help text."""
    reading = command.add_argument_group("image files")
    reading.add_argument(
        "--axes", help="axes of the files, such as TZYX (default: from the file metadata)"
    )
    reading.add_argument("--channel", type=_number_or_name, help=channel)
    reading.add_argument(
        "--pixel-size",
        type=_micrometres,
        nargs="+",
        metavar="UM",
        help=(
            "pixel size in micrometres along z, y and x, or y and x (default: from the file "
            "metadata)"
        ),
    )
    return reading
