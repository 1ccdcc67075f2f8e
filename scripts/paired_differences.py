"""Intervals of paired differences over a few seeds."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

import numpy as np


def interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of the differences and its Student-t interval; of a single one nan as both ends."""
    middle, count = mean(differences), len(differences)
    if count == 1:
        return middle, math.nan, math.nan
    half = t_quantile(0.5 + 0.5 * level, count - 1) * stdev(differences) / math.sqrt(count)
    return middle, middle - half, middle + half


def t_quantile(probability: float, degrees: int) -> float:
    """The quantile above 0 of Student's t, to four digits, by its integrated density.

    With t = sqrt(degrees) tan(a) the density in a is proportional to cos(a)^(degrees - 1).
    """
    angle = np.linspace(0.0, 0.5 * math.pi, 200_001)
    density = np.cos(angle) ** (degrees - 1)
    share = np.cumsum(density) - 0.5 * (density + density[0])
    found = np.interp(2 * probability - 1, share / share[-1], angle)
    return math.sqrt(degrees) * math.tan(float(found))
