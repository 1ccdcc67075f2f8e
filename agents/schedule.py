"""What changes while an agent learns: the length of rollouts, a bonus that is taken back."""

import math
from dataclasses import dataclass

from mbrl_bilevel.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """`first` until `first_step`, `last` from `last_step` on, a line in between.

    Raises:
        InputError: a value that is negative or not finite, or steps that do not rise.
    """

    first: float = 0.0
    last: float = 0.0
    first_step: int = 0
    last_step: int = 1

    def __post_init__(self) -> None:
        values = self.first, self.last
        if not all(v >= 0 and math.isfinite(v) for v in values):
            raise InputError(
                f"from {self.first} to {self.last}: both must be at least 0, and finite"
            )
        if not 0 <= self.first_step < self.last_step:
            raise InputError(
                f"from step {self.first_step} to step {self.last_step}: the second must be later"
            )

    def __call__(self, step: int) -> float:
        share = (step - self.first_step) / (self.last_step - self.first_step)
        return self.first + min(max(share, 0.0), 1.0) * (self.last - self.first)

    @property
    def largest(self) -> float:
        return max(self.first, self.last)
