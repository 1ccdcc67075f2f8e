"""The fan holds the quantiles of what the model samples."""

import math

import pytest
import torch

from mbrl_bilevel.evaluation.fan import PARTICLES, QUANTILES, fan
from mbrl_bilevel.evaluation.fan_figure import predicted_fan
from mbrl_bilevel.evaluation.rollouts import sampled_paths
from mbrl_bilevel.evaluation.windows import draw_windows
from tests.evaluation.drifting_system import drifting, model_that_adds


@pytest.fixture(scope="module")
def found():
    data = drifting((40, 40), noise=0.1)
    model = model_that_adds(0.5, data, std=0.1)
    g = torch.Generator().manual_seed(0)
    windows = draw_windows(data, 9, g)
    paths = sampled_paths(model, windows, g, 10)
    return fan(model, windows, paths, model.input_standardizer.std[:2], g)


def test_quantiles_are_those_of_a_random_walk(found):
    """After k steps the walk's deviation is 0.1 k^1/2 around start + k / 2."""
    steps = torch.arange(1.0, 10.0).view(-1, 1)
    walk = 0.1 * steps.sqrt()
    middle = found.quantiles[QUANTILES.index(0.5)]
    # a median of 200 has the standard error 1.25 s / 200^1/2; four of them, and of the 5 %
    # quantile (2.1 s / 200^1/2)
    error = 4 * walk / math.sqrt(PARTICLES)
    start = middle[0] - 0.5
    assert ((middle - start - 0.5 * steps).abs() < 2 * 1.25 * error).all()
    for level, quantile in zip(QUANTILES, found.quantiles, strict=True):
        expected = walk * torch.special.ndtri(torch.tensor(level))
        assert ((quantile - middle - expected).abs() < (1.25 + 2.1) * error).all()
    assert found.lost == 0


def test_the_figure_draws_them(found):
    figure = predicted_fan(found)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left").split(":")[0] for axes in panels] == list(found.names)
    truth = next(line for line in panels[0].lines if line.get_label() == "truth")
    assert list(truth.get_ydata()) == found.truth[:, 0].tolist()
    low, high = found.quantiles[0, :, 0], found.quantiles[-1, :, 0]
    share = ((found.truth[:, 0] >= low) & (found.truth[:, 0] <= high)).double().mean().item()
    assert f"{100 * share:.0f} % in the 90 % band" in panels[0].get_title(loc="left")


def test_the_hardest_dimension_comes_first_and_the_window_is_a_whole_one():
    data = drifting((20, 3))
    data.next_observation[:, 1] += 3.0  # which the model knows nothing of
    model = model_that_adds(0.5, data)
    g = torch.Generator().manual_seed(0)
    windows = draw_windows(data, 5, g)
    paths = sampled_paths(model, windows, g, 2)
    found = fan(model, windows, paths, torch.ones(2), g, dimensions=1)
    assert list(found.names) == ["observation 1"]
    assert found.truth.shape == (5, 1)
