"""Standardised rows that a network is fitted to."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn


class Samples(NamedTuple):
    """Standardised inputs and targets, on the device that trains."""

    x: Float[Tensor, "b d"]
    y: Float[Tensor, "b n"]

    def like(self, network: nn.Module) -> "Samples":
        """The same rows in the dtype of the network's weights, as data without a gradient."""
        dtype = next(network.parameters()).dtype
        return Samples(self.x.detach().to(dtype), self.y.detach().to(dtype))
