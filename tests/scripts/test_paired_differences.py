"""Intervals of paired differences against tabulated quantiles and a computed example."""

import math

import pytest

from mbrl_bilevel.scripts.paired_differences import interval, t_quantile


@pytest.mark.parametrize(
    ("degrees", "tabulated"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)]
)
def test_quantiles_are_those_of_tables(degrees, tabulated):
    assert t_quantile(0.975, degrees) == pytest.approx(tabulated, abs=1e-3)


def test_the_interval_of_five_differences():
    """Mean 3, deviation sqrt(2.5): 3 +- 2.776 sqrt(2.5 / 5)."""
    middle, low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776 * math.sqrt(0.5)
    assert (middle, low, high) == pytest.approx((3.0, 3.0 - half, 3.0 + half), abs=1e-3)
    assert math.isnan(interval([1.0])[1])
