"""What the returns of some episodes say: mean, spread, standard error, normalised score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mbrl_bilevel.errors import InputError


@dataclass(frozen=True)
class ReturnSummary:
    """The returns of independent episodes, in the environment's own reward units.

    `reference_scores` are the returns of a random and of an expert policy, the 0 and the 100 of a
    normalised score (Fu et al. 2020, D4RL, section 3), or None.

    Raises:
        InputError: no episodes, a return that is not finite, or equal reference scores.
    """

    returns: Sequence[float]
    reference_scores: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not len(self.returns):
            raise InputError("no episodes, no returns: run at least 1 episode")
        if not np.isfinite(self.returns).all():
            raise InputError(f"returns {list(self.returns)}: each must be finite")
        if self.reference_scores is not None and np.ptp(self.reference_scores) == 0:
            raise InputError(f"reference scores {self.reference_scores}: they must differ")

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the episodes at hand (divided by their number)."""
        return float(np.std(self.returns))

    @property
    def standard_error(self) -> float | None:
        """Of the mean, from the unbiased variance; None for a single episode."""
        if len(self.returns) < 2:
            return None
        return float(np.std(self.returns, ddof=1) / np.sqrt(len(self.returns)))

    @property
    def normalized_score(self) -> float | None:
        """100 (mean - random) / (expert - random), or None without reference scores."""
        if self.reference_scores is None:
            return None
        random, expert = self.reference_scores
        return 100 * (self.mean - random) / (expert - random)

    def figures(self) -> dict[str, Any]:
        """For a program: plain numbers, None where there is none."""
        return {
            "mean_return": self.mean,
            "std_return": self.std,
            "standard_error": self.standard_error,
            "normalized_score": self.normalized_score,
            "returns": [float(value) for value in self.returns],
        }

    def rows(self) -> list[tuple[str, str]]:
        """For a table: names and values as text."""
        error, score = self.standard_error, self.normalized_score
        spread = "" if error is None else f" ± {error:.1f} (standard error)"
        return [
            ("episodes", str(len(self.returns))),
            ("mean return", f"{self.mean:.1f}{spread}"),
            ("std of returns", f"{self.std:.1f}"),
            ("lowest, highest", f"{min(self.returns):.1f}, {max(self.returns):.1f}"),
            ("normalised score", "no reference scores" if score is None else f"{score:.1f}"),
        ]

    def table(self) -> str:
        """The rows as text."""
        return "\n".join(f"{name:<18} {value}" for name, value in self.rows())
