"""A start outside the range of the training data moves on by what was learned, with a warning."""

import warnings

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.observation_range import clamp_to_reachable, reachable
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.settings import ModelSettings

CHANGE = 0.1


def walk(count: int = 100) -> Transitions:
    """A position from 0 to 5 that moves on by about CHANGE a step."""
    g = torch.Generator().manual_seed(0)
    obs = torch.linspace(0, 5, count).unsqueeze(-1)
    return Transitions(
        observation=obs,
        action=torch.randn(count, 1, generator=g),
        reward=torch.zeros(count),
        next_observation=obs + CHANGE + 0.02 * torch.randn(count, 1, generator=g),
        terminated=torch.zeros(count, dtype=torch.bool),
        truncated=torch.zeros(count, dtype=torch.bool),
        episode=torch.zeros(count, dtype=torch.long),
    )


def steady(change: float = 0.0) -> DynamicsModel:
    """Predicts the mean change of the data, and `change` standard deviations more, everywhere."""
    model = DynamicsModel(1, 1, ModelSettings(members=2, hidden=()), observation_names=["x"])
    model.fit_standardizers(walk())
    model.network.set_std(torch.full((2, 1), 1e-4))
    with torch.no_grad():
        layer = model.network.network.layers[0]
        layer.weight[..., 0] = 0.0
        layer.bias[..., 0] = change
    return model


def sampled(model: DynamicsModel, obs: Tensor, steps: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    for _ in range(steps):
        obs = model.sample(obs, torch.zeros(len(obs), 1), g).observation
    return obs


def imagined(kind: str, model: DynamicsModel, obs: Tensor, steps: int) -> Tensor:
    actions = torch.zeros(len(obs), 3, steps, 1)
    found = Propagation(model, kind).trajectories(obs, actions, torch.Generator().manual_seed(0))
    return found.observations[..., -1, :].mean((0, 2))


def ahead(way: str, model: DynamicsModel, obs: Tensor, steps: int) -> Tensor:
    return sampled(model, obs, steps) if way == "sample" else imagined(way, model, obs, steps)


WAYS = ("sample", "ts1", "ts_inf", "mean", "mixture")


@pytest.mark.situation("warned")
@pytest.mark.parametrize("start", [50.0, -40.0, 1e4])
@pytest.mark.parametrize("way", WAYS)
def test_a_start_outside_the_range_is_not_thrown_back(way: str, start: float) -> None:
    model, obs = steady(), torch.full((2, 1), start)
    with pytest.warns(UserWarning, match=r"2 of 2 starts lie outside .* x = .*range is -0\.5"):
        one = ahead(way, model, obs, 1)
    expected = obs + model.target_standardizer.mean
    torch.testing.assert_close(one, expected, rtol=1e-6, atol=1e-3)
    ten = ahead(way, model, obs, 10)  # which does not warn again
    torch.testing.assert_close(ten - obs, 10 * (expected - obs), rtol=0.05, atol=1e-2)


@pytest.mark.parametrize("way", WAYS)
def test_outside_the_range_a_network_runs_no_farther_than_the_data_moved(way: str) -> None:
    """Absurd changes are cut at mean and ten deviations a step, whatever the distance."""
    model, obs = steady(change=1e6), torch.full((2, 1), 50.0)
    with pytest.warns(UserWarning, match="outside the range"):
        found = ahead(way, model, obs, 3)
    targets = model.target_standardizer
    torch.testing.assert_close(found - obs, (3 * (targets.mean + 10 * targets.std)).expand(2, 1))


@pytest.mark.parametrize("way", WAYS)
def test_from_inside_the_bounds_are_those_of_the_data_to_the_bit(way: str) -> None:
    model = steady(change=1e6)
    obs = torch.stack([model.lowest, torch.tensor([2.0]), model.highest])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ahead(way, model, obs, 4)
    torch.testing.assert_close(found, model.highest.expand(3, 1))
    lowest, highest = model.reachable(obs, 7)
    assert torch.equal(lowest, model.lowest.expand(3, 1))
    assert torch.equal(highest, model.highest.expand(3, 1))


def test_each_dimension_has_bounds_of_its_own() -> None:
    lowest, highest = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])
    found = reachable(
        torch.tensor([[0.5, 3.0], [-2.0, 0.5]]), lowest, highest, torch.tensor(0.25).expand(2)
    )
    assert found[0].tolist() == [[0.0, 2.75], [-2.25, 0.0]]
    assert found[1].tolist() == [[1.0, 3.25], [-1.75, 1.0]]


def test_a_step_is_clamped_to_what_is_reachable_to_the_bit() -> None:
    g = torch.Generator().manual_seed(0)
    obs, after = (3 * torch.randn(2, 200, 4, generator=g)).unbind()
    lowest, highest = (
        torch.tensor([-1.0, -torch.inf, 0.0, -3e38]),
        torch.tensor([1.0, 2.0, 0.0, 3e38]),
    )
    reach = torch.tensor([0.5, 1.0, 1e-3, 2.0])
    found = clamp_to_reachable(after, obs, lowest, highest, reach)
    assert torch.equal(found, after.clamp(*reachable(obs, lowest, highest, reach)))


def test_a_planner_that_asks_again_of_the_same_start_is_checked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = steady()
    seen: list[Tensor] = []
    monkeypatch.setattr(model, "check_starts", seen.append)
    ahead_of, obs, g = Propagation(model), torch.zeros(1, 1), torch.Generator()
    for start in (obs, obs, obs, torch.ones(1, 1)):
        ahead_of.trajectories(start, torch.zeros(1, 2, 3, 1), g)
    assert [float(s) for s in seen] == [0.0, 1.0]
