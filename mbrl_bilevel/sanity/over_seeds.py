"""Statistics over seeds: mean, standard error and one-sided checks."""

import math
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.sanity.check import Check


class Estimate(NamedTuple):
    """A mean over seeds and its standard error."""

    mean: float
    error: float

    def __str__(self) -> str:
        if not math.isfinite(self.error):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ± {self.error:.3f}"


def estimate(values: Float[Tensor, "e"]) -> Estimate:
    """Mean over seeds and its standard error, std / sqrt(e) with e - 1 degrees of freedom."""
    values = values.double()
    return Estimate(values.mean().item(), (values.std() / len(values) ** 0.5).item())


def at_most(name: str, value: float, limit: float, tolerance: float = 0.0) -> Check:
    """The one-sided check value <= limit + tolerance; a value that is not a number fails."""
    return Check(f"{name} (at most)", value, limit, tolerance, value <= limit + tolerance)
