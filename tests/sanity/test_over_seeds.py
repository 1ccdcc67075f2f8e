"""Means over seeds and one-sided checks."""

import math

import pytest
import torch

from mbrl_bilevel.sanity.over_seeds import at_most, estimate


def test_the_standard_error_is_that_of_the_mean():
    found = estimate(torch.tensor([1.0, 2.0, 6.0]))
    assert found.mean == pytest.approx(3.0)
    assert found.error == pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))
    assert str(found) == "3.000 ± 1.528"
    assert str(estimate(torch.tensor([math.inf, 1.0]))) == "inf"


def test_a_one_sided_check_fails_above_its_limit_alone():
    assert at_most("", -100.0, 0.0).passed
    assert at_most("", 0.1, 0.0, 0.2).passed
    assert not at_most("", 0.3, 0.0, 0.2).passed
    assert not at_most("", math.nan, 0.0, 0.2).passed
