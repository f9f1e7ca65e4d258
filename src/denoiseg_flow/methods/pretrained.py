"""The networks in this package that were pretrained on simulated images.

`config/prior.yaml`, `config/prior_membranes.yaml` and `config/prior_volumes.yaml` train them.
Nothing here imports torch.
"""

from typing import NamedTuple


class Pretrained(NamedTuple):
    """A network pretrained on simulated images of one kind."""

    file: str
    """Name of its model file in :mod:`denoiseg_flow.models.weights`."""
    sha256: str
    structures: tuple[str, ...]
    """What the images show, see :data:`simulator.STRUCTURES`."""
    z_steps: tuple[float, ...] = ()
    """Distances of the z-slices in widths of a pixel; none in 2D."""
    network: str = "unet"
    depth: int = 4
    filters: int = 16
    instances: str = "distance"
    recipe: str = "finetune"
    """The recipe of config.yaml for trainings that start from it."""

    @property
    def dimensions(self) -> int:
        """2 for planes, 3 for volumes."""
        return 3 if self.z_steps else 2


PRETRAINED = {
    "simulated_objects": Pretrained(
        "objects.pt",
        "59e0c945b8a38f57ed9dfa4fa97bc8387f9cd3e8c4f09fff82dda3964823214e",
        ("nuclei",) * 8 + ("blobs", "rods"),
    ),
    "simulated_membranes": Pretrained(
        "membranes.pt",
        "d0681db14111be13c486e6c6b3d8c3fb69bf93cbe76723a7d5e6843d29f980be",
        ("membranes",),
        recipe="finetune_membranes",
    ),
    "simulated_volumes": Pretrained(
        "volumes.pt",
        "dba2a3ebb805d22d1c52a98e161df4d47458a6f3a70a35a100836efc7d1f833e",
        ("nuclei",),
        z_steps=(1.0, 2.0, 4.0),
        depth=3,
        filters=8,
        recipe="finetune_volumes",
    ),
}
"""Values of a method's ``init`` besides the names of methods."""
