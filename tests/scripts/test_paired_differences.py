"""Intervals of paired differences against tabulated quantiles."""

import math

import pytest

from mbrl_bilevel.scripts.paired_differences import interval


@pytest.mark.parametrize(("count", "tabulated"), [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262)])
def test_half_the_interval_is_a_tabulated_quantile_times_the_standard_error(count, tabulated):
    """Differences 1 ... n: mean (n + 1) / 2, variance n (n + 1) / 12."""
    middle, low, high = interval([float(i + 1) for i in range(count)])
    half = tabulated * math.sqrt((count + 1) / 12)
    assert middle == pytest.approx(0.5 * (count + 1))
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-3)


def test_a_single_difference_has_no_interval():
    middle, low, high = interval([1.0])
    assert middle == 1.0
    assert math.isnan(low)
    assert math.isnan(high)
