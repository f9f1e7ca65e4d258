"""The model files of networks pretrained on simulated images."""

from pathlib import Path

import torch

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.checksums import digest
from denoiseg_flow.methods.pretrained import PRETRAINED
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.model_file import load_model

FOLDER = Path(__file__).parent


def load_pretrained(name: str, device: torch.device | str = "cpu") -> TrainedModel:
    """Read a pretrained network.

    Parameters
    ----------
    name
        One of :data:`pretrained.PRETRAINED`.

    Raises
    ------
    InputError
        If its file is missing or damaged.
    """
    pretrained = PRETRAINED[name]
    path = FOLDER / pretrained.file
    if not path.is_file() or digest(path) != pretrained.sha256:
        raise InputError(
            f"pretrained network {path} is missing or damaged; install denoiseg-flow again"
        )
    model = load_model(path, device)
    assert isinstance(model, TrainedModel)
    return model
