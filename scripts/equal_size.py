"""Widths at which networks of different kinds have the same number of parameters."""

from bisect import bisect_left

import torch

from mbrl_bilevel.models.network_kinds import NETWORKS
from mbrl_bilevel.models.settings import NetworkKind

LAYERS, WIDEST = 3, 4_096


def parameters(kind: NetworkKind, inputs: int, outputs: int, width: int) -> int:
    """Of an ensemble of the usual size with three hidden layers of that width.

    Counted are the numbers that tell the predictions; what all members share, as the noise of
    `separate` and `two_means`, once. An outer level's reward is no part of a model.
    """
    with torch.device("meta"):
        return NETWORKS[kind](inputs, outputs, hidden=(width,) * LAYERS).parameter_count


def hidden_of_equal_size(
    kind: NetworkKind, inputs: int, outputs: int, size: int
) -> tuple[int, ...]:
    """The three equal hidden layers whose network is nearest to `size` parameters."""

    def count(width: int) -> int:
        return parameters(kind, inputs, outputs, width)

    above = max(2, bisect_left(range(WIDEST), size, lo=1, key=count))
    width = min(above - 1, above, key=lambda w: abs(count(w) - size))
    return (width,) * LAYERS
