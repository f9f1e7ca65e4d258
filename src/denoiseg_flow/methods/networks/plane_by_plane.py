"""Apply a 2D network to volumes, z-slice by z-slice."""

import torch
from torch import nn

from denoiseg_flow.methods.networks.network import Network


class PlaneByPlane(Network):
    """Apply a network to each z-slice of a volume separately.

    Parameters
    ----------
    network
        Maps (batch, inputs, y, x) to (batch, outputs, y, x).
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.stride = (1, *network.stride)
        self.halo = (0, *network.halo)
        self.bounded = network.bounded

    def encoder_parts(self) -> list[nn.Module]:
        """Return those of the network."""
        return self.network.encoder_parts()

    def start_at(self, grey: float) -> None:
        """Initialise the network, if it is ``bounded``."""
        self.network.start_at(grey)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, z, y, x) to (batch, outputs, z, y, x)."""
        batch, _, depth, *sides = x.shape
        planes = x.transpose(1, 2).flatten(0, 1)
        output = self.network(planes.contiguous(memory_format=torch.channels_last))
        return output.view(batch, depth, -1, *sides).transpose(1, 2)
