"""What one check of a closed world found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A figure beside its expected value; it passes within an absolute `tolerance`."""

    name: str
    value: float
    expected: float
    tolerance: float
    passed: bool


def check(name: str, value: float, expected: float, tolerance: float) -> Check:
    """The check of |value - expected| <= tolerance; a value that is not a number fails."""
    return Check(name, value, expected, tolerance, abs(value - expected) <= tolerance)
