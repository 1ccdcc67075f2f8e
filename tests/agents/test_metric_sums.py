"""Averages of metrics: the same whenever they are saved and loaded in between."""

import pytest
import torch

from mbrl_bilevel.agents.metric_sums import MetricSums


def test_averages_since_the_last_call_and_the_largest_of_the_largest():
    sums = MetricSums("policy")
    assert sums.take() == {}
    for q, largest in ((1.0, 3.0), (2.0, 7.0), (6.0, 5.0)):
        sums.add({"q": torch.tensor(q), "largest_q": torch.tensor(largest)})
    sums.add({"penalty": torch.tensor(4.0)})
    assert sums.take() == {"policy/q": 3.0, "policy/largest_q": 7.0, "policy/penalty": 4.0}
    sums.add({"q": torch.tensor(-1.0)})
    assert sums.take() == {"policy/q": -1.0}


def test_sums_are_exact_where_float32_would_not_be():
    """2^24 + 1 has no float32."""
    sums = MetricSums("a")
    for value in (2.0**24, 1.0, 1.0):
        sums.add({"b": torch.tensor(value)})
    assert sums.take()["a/b"] == pytest.approx((2**24 + 2) / 3, rel=1e-12)


def test_its_state_goes_on():
    first, second = MetricSums("a"), MetricSums("a")
    first.add({"b": torch.tensor(1.0), "largest_c": torch.tensor(2.0)})
    second.add({"d": torch.tensor(9.0)})
    second.load_state({k: v.clone() for k, v in first.state().items()})
    for one in (first, second):
        one.add({"b": torch.tensor(4.0), "largest_c": torch.tensor(1.0)})
    assert first.take() == second.take() == {"a/b": 2.5, "a/largest_c": 2.0}
