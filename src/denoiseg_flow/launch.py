"""Studies outside of a clone: ``denoiseg-flow init`` writes a config, ``run`` runs Snakemake.

The workflow is part of an installed package, in ``share``. In a clone it is the clone itself.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from denoiseg_flow.errors import InputError

CONFIG = "config.yaml"
FOLDERS = ("images", "masks")  # of a study, for the images and the masks of the user

# Options of Snakemake that say how many jobs may run; with none of them, all cores are used.
_PARALLEL = ("--cores", "--jobs", "--executor", "-e", "--profile", "--workflow-profile")
_SHORT = ("-c", "-j")  # a number may follow without a space


def workflow_folder() -> Path:
    """Return the folder that holds the Snakefile, the shipped configs and the example images.

    Raises
    ------
    InputError
        If the installation is incomplete.
    """
    package = Path(__file__).parent
    for folder in (package / "share", package.parents[1]):
        if (folder / "Snakefile").is_file():
            return folder
    raise InputError(
        f"{package} was installed without the workflow; install it again with "
        "`python -m pip install --force-reinstall denoiseg-flow`"
    )


def init(folder: Path, example: bool = False) -> list[Path]:
    """Write a config for own images, and folders for the images and the masks.

    Parameters
    ----------
    folder
        Folder of the study; created if it does not exist.
    example
        Whether to fill the folders with the example images of the package, and to train on them for
        minutes only.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    InputError
        If the folder is a file, or has anything else than ``images`` and ``masks`` in it.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder")
    held = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if others := [name for name in held if example or name not in FOLDERS]:
        name = CONFIG if CONFIG in others else others[0]
        raise InputError(
            f"{folder} is not empty: it has {name}, and nothing is written over; name a new folder"
            f"{'' if example else ', or one that has only images and masks, in folders so named'}"
        )
    shipped = workflow_folder()
    text = (shipped / "config/own_images.yaml").read_text(encoding="utf-8")
    # Paths of a config are relative to the folder in which Snakemake runs: the folder of the study.
    changes = {
        "snakemake --cores all --configfile config/own_images.yaml": "denoiseg-flow run",
        "data/my_images/": "",
    }
    if example:
        changes["recipe: fast\n"] = (
            "recipe: demo # minutes for all; 'fast' takes longer and is better\n"
        )
    for old, new in changes.items():
        if old not in text:
            raise AssertionError(f"own_images.yaml has no {old!r}")
        text = text.replace(old, new)
    for name in FOLDERS:
        if example:
            shutil.copytree(shipped / "examples/nuclei" / name, folder / name)
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(text, encoding="utf-8")
    return [folder / name for name in (CONFIG, *FOLDERS)]


def snakemake_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments for Snakemake: the workflow, defaults, and those of the user.

    Without ``--configfile``, the config is ``config.yaml`` in the working directory. Without a
    limit of jobs, all cores are used.

    Raises
    ------
    InputError
        If there is no config.
    """
    given = {argument.partition("=")[0] for argument in arguments}
    added = []
    if not given & {"--configfile", "--configfiles"}:
        if not Path(CONFIG).is_file():
            raise InputError(
                f"there is no {CONFIG} in {Path.cwd()}; write one with `denoiseg-flow init "
                "FOLDER` and change to that folder, or name a config with --configfile"
            )
        added = ["--configfile", CONFIG]
    if not any(each in _PARALLEL or each[:2] in _SHORT for each in given):
        added += ["--cores", "all"]
    # Not '--configfile' last: it takes several values, and would swallow a target.
    return [*added, "--snakefile", str(workflow_folder() / "Snakefile"), *arguments]


def run(arguments: Sequence[str]) -> None:
    """Run Snakemake on the workflow in this process, which exits with its status."""
    from snakemake.cli import main

    main(snakemake_arguments(arguments))
