"""The linear baseline against least squares and a system that is linear."""

import torch

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.evaluation.baselines import RIDGE, LinearModel
from mbrl_bilevel.evaluation.windows import draw_windows
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings


def linear_system(A, B, steps=40, episodes=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    rows = []
    for episode in range(episodes):
        state = torch.randn(2, generator=g)
        for _ in range(steps):
            action = torch.randn(1, generator=g)
            after = A @ state + B @ action
            rows.append((state, action, after, episode))
            state = after
    observation, action, after, episode = zip(*rows, strict=True)
    flags = torch.zeros(len(rows), dtype=torch.bool)
    return Transitions(
        torch.stack(observation),
        torch.stack(action),
        torch.zeros(len(rows)),
        torch.stack(after),
        flags,
        flags,
        torch.tensor(episode),
    )


def fitted(data):
    model = DynamicsModel(2, 1, ModelSettings(members=1, hidden=(4,)))
    model.fit_standardizers(data)
    return model, LinearModel.fit(model, data)


STABLE = torch.tensor([[0.9, 0.2], [-0.2, 0.9]]), torch.tensor([[0.1], [0.3]])


def test_weights_are_those_of_ridge_regression():
    """Ridge is least squares with one more row per input: the root of the penalty, target 0."""
    data = linear_system(*STABLE)
    model, linear = fitted(data)
    x, y = (part.double() for part in model.encode(data))
    penalty = (RIDGE * len(x)) ** 0.5 * torch.eye(3).double()
    rows, targets = torch.cat([x, penalty]), torch.cat([y, torch.zeros(3, 2).double()])
    expected = torch.linalg.lstsq(rows, targets).solution.float()
    torch.testing.assert_close(linear.weight, expected, rtol=1e-4, atol=1e-6)


def test_a_linear_system_is_followed_for_many_steps():
    """Only the penalty, 1e-4 of the variance, keeps the baseline from being exact."""
    data = linear_system(*STABLE)
    _, linear = fitted(data)
    windows = draw_windows(data, 30, torch.Generator().manual_seed(0))
    error = (linear.paths(windows) - windows.truth)[windows.recorded]
    assert error.abs().max() < 0.02 * data.observation.std()


def test_an_unstable_mode_stays_in_the_range_of_the_data():
    data = linear_system(torch.tensor([[1.2, 0.0], [0.0, 0.5]]), STABLE[1], steps=10)
    model, linear = fitted(data)
    windows = draw_windows(data, 10, torch.Generator().manual_seed(0))
    far = linear.paths(windows)
    assert (far >= model.lowest).all()
    assert (far <= model.highest).all()
    assert (far == model.highest).any() or (far == model.lowest).any()
