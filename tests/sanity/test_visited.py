"""The toy of visited states: its closed forms, and what its checks would find out."""

import math

import pytest
import torch

from mbrl_bilevel.sanity import visited
from mbrl_bilevel.sanity.visited import HORIZON, ROWS, best, fixed_point, variances, visited_checks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_best_parameter_is_that_of_a_quadrature():
    """E s sin s and E s^2 over normal distributions, by the trapezoidal rule."""
    s = torch.linspace(-12, 12, 20_001).double()

    def moments(v):
        density = torch.exp(-s.square() / (2 * v)) / math.sqrt(2 * math.pi * v)
        return [torch.trapezoid(f * density, s) for f in (s * s.sin(), s.square())]

    seen = variances(0.7)
    top, bottom = (
        0.8 * sum(m[i] for m in map(moments, seen)) / HORIZON + 0.2 * moments(ROWS)[i]
        for i in (0, 1)
    )
    assert best(seen, 0.2) == pytest.approx((1.5 * top / bottom).item(), rel=1e-9)


def test_the_fixed_point_is_that_of_the_theory_and_far_from_the_fit_to_all_rows():
    """And a round comes 50 times nearer to it."""
    a = fixed_point()
    assert best(variances(a)) == pytest.approx(a, abs=1e-12)
    found = best([ROWS]), a, fixed_point(0.02), fixed_point(0.1)
    assert [round(x, 3) for x in found] == [0.910, 1.412, 1.301, 1.092]
    assert abs(best(variances(a + 0.01)) - a) < 0.01 / 50


@pytest.mark.slow
def test_every_check_passes():
    assert [c.name for c in visited_checks(seeded()) if not c.passed] == []


@pytest.mark.slow
def test_rows_of_equal_weight_fail_the_checks(monkeypatch):
    monkeypatch.setattr(visited, "weighted", lambda rows, a, uniform, generator: rows)
    failed = {c.name for c in visited_checks(seeded()) if not c.passed}
    assert "a learned where the policy goes" in failed
    assert "variance of the rows where the policy goes" in failed
