"""DenoiSeg-Flow: joint denoising and segmentation of sparsely annotated microscopy images."""

from typing import Any

from denoiseg_flow.version import __version__ as __version__

#: The Python API, of the module ``api``.
__all__ = ["DENOISEG", "FAST", "Prediction", "load_model", "predict", "save_model", "train"]


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: PyTorch takes seconds, and planning needs none."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from denoiseg_flow import api

    return getattr(api, name)
