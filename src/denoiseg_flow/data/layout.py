"""The folders of a study, and the names of what lies in them."""

from pathlib import Path


def input_folder(path: Path) -> Path:
    """Return the folder with the images to read: ``path``, or the denoised images of a run."""
    return path / "denoised" if (path / "denoised").is_dir() else path
