"""Settings of a dynamics model; importing them does not import torch."""

from dataclasses import dataclass
from typing import Annotated, Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import Count, Range, check_ranges

Covariance = Literal["diagonal", "full"]
Noise = Literal["input", "constant"]
NetworkKind = Literal["gaussian", "natural", "separate_noise", "two_means"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What an ensemble is built of.

    Raises:
        InputError: a number out of range, more elites than members.
    """

    members: Count = 5
    """Members of the ensemble."""
    elites: Count | None = None
    """Number of members that predict, those of lowest held-out error; default: all."""
    hidden: tuple[Count, ...] = (200, 200, 200)
    """Units of the hidden layers."""
    covariance: Covariance = "diagonal"
    """Covariance of each member's Gaussian."""
    layer_norm: bool = False
    """Layer normalisation in the hidden layers."""
    dropout: Annotated[float, Range(0, 0.9)] = 0.0
    """Dropout in the hidden layers, in training only."""
    noise: Noise = "input"
    """Noise as a function of the input, or constant per member and target."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.elites is not None and self.elites > self.members:
            raise InputError(
                f"--elites {self.elites}: choose from 1 to the number of members, {self.members}"
            )
