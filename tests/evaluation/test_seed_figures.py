"""What stands in the figures of groups of seeds is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mbrl_bilevel.evaluation.one_step import LEVELS
from mbrl_bilevel.evaluation.returns import Estimate, estimate
from mbrl_bilevel.evaluation.seed_figures import (
    calibration_by_group,
    error_by_steps_ahead,
    improvement_probabilities,
    learned_precision,
    seeds_compared,
)

SEEDS = [1.0, 9.0, 3.0, 4.0, 100.0]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_seeds_are_dots_and_bars_their_interquartile_mean_and_interval():
    figure = seeds_compared({"error": {"a": SEEDS, "b": [2.0]}, "nll": {"b": [5.0]}}, "t", seed=3)
    error, nll = figure.axes
    assert [t.get_text() for t in error.get_yticklabels()] == ["a", "b"]
    first, second = (points.get_offsets()[:, 0].tolist() for points in error.collections)
    assert (first, second) == (SEEDS, [2.0])
    interval, middle, alone = (line.get_xdata() for line in error.lines)
    expected = estimate([SEEDS], "iqm", generator=np.random.default_rng(3))
    assert tuple(interval) == expected.interval
    assert tuple(middle) == (expected.value,) * 2
    assert expected.value == pytest.approx((9 + 3 + 4) / 3)  # without 1 and 100
    assert tuple(alone) == (2.0, 2.0)  # of one seed, without an interval
    (dots,) = nll.collections
    assert np.round(dots.get_offsets()).tolist() == [[5.0, 1.0]]  # in the row of b


def test_errors_ahead_are_means_where_all_seeds_have_some():
    groups = {"a": [{1: 0.1, 10: 0.4, 50: 0.9}, {1: 0.3, 10: 0.8}]}
    (axes,) = error_by_steps_ahead(groups, {"persistence": {1: 2.0, 10: 3.0}}).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    np.testing.assert_allclose(lines["a"], [[1, 0.2], [10, 0.6]])
    assert lines["persistence"] == [[1, 2.0], [10, 3.0]]
    assert [[1, 0.1], [10, 0.4], [50, 0.9]] in lines.values()


def test_calibration_is_the_excess_over_the_quantile():
    levels = LEVELS.double().numpy()
    (axes,) = calibration_by_group({"a": [(levels + 0.1).tolist(), (levels - 0.3).tolist()]}).axes
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(lines["a"], -0.1, atol=1e-7)


def test_the_learned_precision_of_seeds_and_its_geometric_mean():
    (axes,) = learned_precision({"a": {"x": [1.0, 100.0], "y": [3.0]}, "b": {"y": [7.0]}}).axes
    bars = [line.get_xdata().tolist() for line in axes.lines if len(line.get_xdata())]
    np.testing.assert_allclose(bars, [[10, 10], [3, 3], [7, 7]])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["x", "y"]


def test_probabilities_stand_beside_their_intervals():
    found = {"a over b": Estimate(0.7, (0.4, 0.9)), "a over c": Estimate(1.0, None)}
    (axes,) = improvement_probabilities(found).axes
    values = [list(line.get_xdata()) for line in axes.lines]
    assert values == [[0.5, 0.5], [0.4, 0.9], [0.7, 0.7], [1.0, 1.0]]
