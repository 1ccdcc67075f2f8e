"""Intervals of paired differences over a few seeds."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

from scipy import stats


def interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of the differences and its Student-t interval; of a single one nan as both ends."""
    middle, count = mean(differences), len(differences)
    if count == 1:
        return middle, math.nan, math.nan
    half = float(stats.t.ppf(0.5 + 0.5 * level, count - 1)) * stdev(differences) / math.sqrt(count)
    return middle, middle - half, middle + half
