"""The result of one check of a toy problem."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A value beside its expected one; it passes within an absolute `tolerance`."""

    name: str
    value: float
    expected: float
    tolerance: float
    passed: bool


def check(name: str, value: float, expected: float, tolerance: float) -> Check:
    """The check of |value - expected| <= tolerance; a value that is not a number fails."""
    return Check(name, value, expected, tolerance, abs(value - expected) <= tolerance)
