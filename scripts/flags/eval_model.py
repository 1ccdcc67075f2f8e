"""Flags of eval-model."""

from dataclasses import dataclass
from pathlib import Path

from mbrl_bilevel.ranges import Count
from mbrl_bilevel.scripts.flags.shared import Computing


@dataclass(frozen=True, kw_only=True)
class Config(Computing):
    """Flags of eval-model."""

    model: tuple[Path, ...]
    """Run folders of train-model; several are evaluated side by side."""
    dataset: str | None = None
    """Evaluate on all of this data set; default: on the test episodes of the model's own."""
    horizons: tuple[Count, ...] = (1, 10, 50, 100)
    """Steps ahead at which the open-loop error is reported, if episodes are long enough."""
    recalibrate: bool = False
    """First multiply each model's predicted deviations by one factor per dimension, fitted on the
    held-out episodes of its training, and store the factors with the model: sampling and planning
    use them from then on."""
    out: Path | None = None
    """New folder for the comparison of several models; default: comparison-001, ... beside them."""
