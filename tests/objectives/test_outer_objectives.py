"""The open-loop error of the outer level: the paths of propagation, its value and its gradient."""

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.objectives.outer_objectives import LOST, KStepError
from tests.objectives.swirling_system import (
    all_windows,
    model_of,
    seeded,
    swirling,
    with_constant,
)

HORIZON = 5


def mean_of(model):
    return lambda x: model.network(x).mean


def starts_of(data, horizon, length=20):
    """Rows that begin a window, in order."""
    rows = torch.arange(len(data))
    return rows[rows % length <= length - horizon]


def in_order(model, data, horizon):
    """All windows in the order of their starts: as `all_windows`, which are shuffled."""
    found = all_windows(model, data, horizon)
    size = model.obs_dim
    mean, std = model.input_standardizer.mean[:size], model.input_standardizer.std[:size]
    starts = (data.observation[starts_of(data, horizon)] - mean) / std
    place = torch.cdist(starts, found.start[0]).argmin(1)
    return found._replace(**{k: v[:, place] for k, v in found._asdict().items() if v is not None})


@pytest.mark.parametrize("learn_reward", [True, False])
@pytest.mark.filterwarnings("ignore:.*(starts lie outside|are constant in):UserWarning")
@pytest.mark.parametrize("change", ["none", "constant", "outside", "wild"])
def test_paths_are_those_of_propagation(learn_reward, change):
    """With a constant dimension, from starts outside the range, and where every bound is met."""
    data = swirling()
    if change == "constant":
        data = with_constant(data)
    model = model_of(data, members=2, hidden=(8,), learn_reward=learn_reward)
    if change == "wild":  # predictions of a hundred deviations
        with torch.no_grad():
            for p in model.network.parameters():
                p.mul_(12.0)
    shown = data
    if change == "outside":
        shift = torch.tensor([3.0, 0.0]).double()
        shown = replace(
            data,
            observation=data.observation + shift,
            next_observation=data.next_observation + shift,
        )
    windows = in_order(model, shown, HORIZON)
    observations, rewards = KStepError(model).paths(mean_of(model), windows)

    rows = starts_of(data, HORIZON)
    actions = shown.action[rows.unsqueeze(-1) + torch.arange(HORIZON)]
    expected = Propagation(model, "mean").trajectories(
        shown.observation[rows], actions.unsqueeze(1), seeded()
    )
    size = model.obs_dim
    mean, std = model.input_standardizer.mean[:size], model.input_standardizer.std[:size]
    torch.testing.assert_close(observations * std + mean, expected.observations[:, :, 0, 1:])
    if learn_reward:
        targets = model.target_standardizer
        own = rewards * targets.std[size] + targets.mean[size]
        torch.testing.assert_close(own, expected.rewards[:, :, 0])


@pytest.mark.filterwarnings("ignore:.*are constant in:UserWarning")
def test_the_error_is_a_mean_of_squares_up_to_a_bound_summed_over_members():
    """Against loops; a dimension that never changes does not count."""
    data = with_constant(swirling())
    model = model_of(data, members=2, hidden=(8,))
    windows = all_windows(model, data, HORIZON)
    error = KStepError(model)
    observations, rewards = error.paths(mean_of(model), windows)
    total, lost = 0.0, 0
    for e in range(2):
        for m in range(len(windows.start[0])):
            for t in range(HORIZON):
                squares = [
                    (observations[e, m, t, i] - windows.observations[e, m, t, i]).item() ** 2
                    for i in range(2)
                ]
                squares.append((rewards[e, m, t] - windows.rewards[e, m, t]).item() ** 2)
                lost += sum(squares) / 3 > LOST
                total += min(sum(squares) / 3, LOST) / (len(windows.start[0]) * HORIZON)
    assert lost > 0
    assert error(mean_of(model), windows).item() == pytest.approx(total, rel=1e-12)


def test_a_lost_window_gives_no_gradient_and_the_others_that_of_finite_differences():
    data = swirling()
    model = model_of(data, members=2, hidden=(4,))
    windows = all_windows(model, data, HORIZON)
    far = windows._replace(observations=windows.observations + 100.0)
    error = KStepError(model)
    theta = {k: p.detach().clone().requires_grad_() for k, p in model.network.named_parameters()}

    def value(at, data):
        return error(lambda x: functional_call(model.network, at, (x,)).mean, data)

    assert value(theta, far).item() == pytest.approx(2 * LOST)
    lost = torch.autograd.grad(value(theta, far), list(theta.values()))
    assert all((g == 0).all() for g in lost)
    gradient = torch.autograd.grad(value(theta, windows), list(theta.values()))
    g = seeded(4)
    direction = {k: torch.randn(p.shape, generator=g).double() for k, p in theta.items()}
    step = 1e-6
    moved = [
        value({k: p + s * direction[k] for k, p in theta.items()}, windows).item()
        for s in (step, -step)
    ]
    found = sum((a * b).sum() for a, b in zip(gradient, direction.values(), strict=True))
    assert abs(found.item()) > 1e-2
    assert found.item() == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-6)


def test_an_error_of_one_member_is_no_matter_to_another():
    data = swirling()
    model = model_of(data, members=2, hidden=(4,))
    windows = all_windows(model, data, HORIZON)
    loss = KStepError(model)(mean_of(model), windows)
    first = windows._replace(observations=windows.observations.clone())
    first.observations[0] += 0.1
    changed = KStepError(model)(mean_of(model), first)
    assert loss.item() != changed.item()
    for p, one, two in zip(
        model.network.parameters(),
        torch.autograd.grad(loss, list(model.network.parameters())),
        torch.autograd.grad(changed, list(model.network.parameters())),
        strict=True,
    ):
        assert p.shape[0] == 2
        assert torch.equal(one[1], two[1])
