"""Data of other types than the model's: cast where they come in, and none of them changes it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.evaluation.model_evaluation import evaluate
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.planning.cem import CEM
from mbrl_bilevel.planning.icem import ICEM
from mbrl_bilevel.planning.mppi import MPPI
from mbrl_bilevel.planning.random_shooting import RandomShooting
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from tests.planning.toy_problems import ClosedTask, quadratic

KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "float64": Tensor.double,
    "float32 with gradient": lambda t: t.clone().requires_grad_(),
    "float64 with gradient": lambda t: t.double().requires_grad_(),
}
PLANNERS = (RandomShooting, CEM, ICEM, MPPI)


def transitions(cast: Callable[[Tensor], Tensor] = Tensor.float) -> Transitions:
    """4 episodes of 50 steps of x' = 0.9 x + 0.3 u in values that float32 holds exactly."""
    g = torch.Generator().manual_seed(0)
    obs = torch.randint(-64, 64, (200, 2), generator=g) / 64
    act = torch.randint(-64, 64, (200, 1), generator=g) / 64
    after = ((0.9 * obs + 0.3 * act) * 256).round() / 256
    never, episode = torch.zeros(200, dtype=torch.bool), torch.arange(4).repeat_interleave(50)
    return Transitions(cast(obs), cast(act), cast(-obs[:, 0]), cast(after), never, never, episode)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def model(data: Transitions) -> DynamicsModel:
    made = DynamicsModel(
        2, 1, ModelSettings(members=2, hidden=(8,)), learn_reward=True, generator=seeded()
    )
    made.fit_standardizers(data)
    return made


@pytest.mark.situation("right")
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_fitted_to_data_of_any_type_as_to_its_own(kind: str) -> None:
    fitted = []
    for data in (transitions(), transitions(KINDS[kind])):
        one = model(data)
        samples = Samples(*one.encode(data))
        assert samples.x.dtype == samples.y.dtype == torch.float32
        assert not samples.x.requires_grad
        wide = Samples(KINDS[kind](samples.x), KINDS[kind](samples.y))
        fit_network(
            one.network,
            NLL(),
            wide,
            wide,
            generator=seeded(),
            progress=False,
            settings=FitSettings(steps=20),
        )
        fitted.append(one.state_dict())
    for name, value in fitted[0].items():
        assert value.dtype == fitted[1][name].dtype
        torch.testing.assert_close(value, fitted[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.situation("right")
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_predicts_from_any_type_as_from_its_own(kind: str) -> None:
    data, other = transitions(), transitions(KINDS[kind])
    one = model(data)

    def said(rows: Transitions) -> list[Tensor]:
        obs, act = rows.observation[:5], rows.action[:5]
        step = one.sample(obs, act, seeded())
        chosen = one.sample(obs, act, seeded(), torch.tensor([0, 1, 0, 1, 0]))
        found = [one.predict(obs, act).mean.detach(), step.observation, chosen.observation]
        assert step.reward is not None
        found.append(step.reward)
        for how in ("ts1", "ts_inf", "mean", "mixture"):
            plans = act[:, None, None].expand(-1, 3, 4, -1)
            found.append(Propagation(one, how).trajectories(obs, plans, seeded()).observations)
        return found

    for ours, theirs in zip(said(data), said(other), strict=True):
        assert theirs.dtype == torch.float32
        assert not theirs.requires_grad
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.situation("right")
@pytest.mark.parametrize("planner", PLANNERS)
def test_planners_take_float64_observations(planner: type) -> None:
    one, task = model(transitions()), ClosedTask(quadratic)
    plan = planner([-1.0], [1.0], horizon=3, samples=32)
    actions = plan(Propagation(one), task, transitions().observation[:2].double(), seeded())
    assert actions.shape == (2, 3, 1)
    assert bool((actions.abs() <= 1).all())


@pytest.mark.situation("right")
def test_figures_of_float64_data_are_those_of_float32_data() -> None:
    one = model(transitions())
    found = [
        evaluate(one, data, (1, 5), seeded(), data).metrics()
        for data in (transitions(), transitions(Tensor.double))
    ]
    for name in ("rmse", "nll", "r2"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-5)
    assert found[1]["k_step"]["5"] == pytest.approx(found[0]["k_step"]["5"], rel=1e-5)
    assert found[1]["k_step_linear"]["5"] == pytest.approx(found[0]["k_step_linear"]["5"], rel=1e-4)
