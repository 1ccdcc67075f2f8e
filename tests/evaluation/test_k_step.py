"""Open-loop error against dynamics whose error is known."""

import pytest
import torch

from mbrl_bilevel.evaluation.baselines import LinearModel
from mbrl_bilevel.evaluation.k_step import k_step
from mbrl_bilevel.evaluation.windows import draw_windows
from tests.evaluation.drifting_system import drifting, model_that_adds


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("change", [0.5, 0.4, 0.0])
def test_the_error_grows_with_the_steps_as_it_must(change):
    data = drifting()
    model = model_that_adds(change, data)
    found = k_step(model, draw_windows(data, 6, generator()), generator())
    scale = model.input_standardizer.std[:2]
    steps = torch.arange(1.0, 7.0).double()
    size = (1 / scale).square().mean().sqrt().double()
    torch.testing.assert_close(found.rmse, abs(0.5 - change) * steps * size, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.persistence, 0.5 * steps * size, rtol=1e-4, atol=1e-5)
    assert found.non_finite == 0


def test_short_episodes_count_for_as_many_steps_as_they_have():
    """12 starts of 12 steps and 10 of 3; the errors after a step do not see how long others are."""
    data = drifting((12, 3, 3, 4))
    found = k_step(model_that_adds(0.0, data), draw_windows(data, 12, generator()), generator())
    assert found.starts.tolist() == [22, 18, 14, 10]  # the fifth step has 8 starts: too few
    size = k_step(model_that_adds(0.0, data), draw_windows(data, 1, generator()), generator())
    torch.testing.assert_close(found.rmse[:1], size.rmse)
    torch.testing.assert_close(found.rmse, size.rmse * torch.arange(1.0, 5.0), rtol=1e-4, atol=0)


def test_other_units_divide_the_error():
    data = drifting()
    windows, model = draw_windows(data, 3, generator()), model_that_adds(0.4, data)
    found = k_step(model, windows, generator(), scale=torch.tensor([0.1, 0.1]))
    expected = torch.tensor([1.0, 2.0, 3.0]).double()
    torch.testing.assert_close(found.rmse, expected, rtol=1e-3, atol=0)


def test_a_linear_baseline_stands_beside_the_model():
    data = drifting()
    model = model_that_adds(0.0, data)
    linear = LinearModel.fit(model, data)
    windows = draw_windows(data, 3, generator())
    found = k_step(model, windows, generator(), linear)
    scale = model.input_standardizer.std[:2]
    error = ((linear.paths(windows) - windows.truth) / scale).square().mean(-1)
    for k in range(3):
        there = windows.recorded[:, k]
        assert found.linear[k].item() == pytest.approx(error[there, k].mean().sqrt().item(), 1e-4)
    assert k_step(model, windows, generator()).linear is None


def test_futures_that_are_not_finite_are_counted_and_left_out():
    """Three starts that are no numbers, and so are all steps from there."""
    data = drifting((30,))
    model = model_that_adds(0.0, data)
    windows = draw_windows(data, 3, generator())
    whole = k_step(model, windows[3:], generator())
    with torch.no_grad():
        windows.start[:3] = torch.nan
    found = k_step(model, windows, generator())
    assert found.non_finite == 3
    torch.testing.assert_close(found.rmse, whole.rmse)
