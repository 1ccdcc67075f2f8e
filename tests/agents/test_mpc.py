from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mbrl_bilevel.agents.mpc import MPC
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.icem import ICEM
from mbrl_bilevel.protocols import Agent, Task, TrajectoryModel
from tests.planning.toy_problems import ClosedTask, LinearModel

MODEL = LinearModel(torch.tensor([[1.0, 0.1], [0.0, 1.0]]), torch.tensor([[0.0], [0.1]]))
TASK = ClosedTask(lambda obs, act, next_obs: -next_obs.square().sum(-1))


def agent(seed: int = 0, **planner: Any) -> MPC:
    box = np.array([1.0], dtype=np.float32)
    generator = torch.Generator().manual_seed(seed)
    return MPC(MODEL, TASK, ICEM(-box, box, **{"horizon": 10, **planner}), generator)


class Scripted:
    """A planner that returns 10 environment + time, and counts its resets."""

    def __init__(self) -> None:
        self.resets = 0

    def __call__(
        self, model: TrajectoryModel, task: Task, obs: Tensor, generator: torch.Generator
    ) -> Tensor:
        assert obs.dtype == torch.float32
        env = 10 * torch.arange(len(obs), dtype=obs.dtype)[:, None, None]
        return env + torch.arange(4, dtype=obs.dtype)[:, None] + torch.zeros(2)

    def reset(self) -> None:
        self.resets += 1


def test_the_first_action_of_the_plan_is_taken() -> None:
    planner = Scripted()
    mpc = MPC(MODEL, TASK, planner, torch.Generator())
    one, many = mpc.act(np.zeros(2)), mpc.act(np.zeros((3, 2)))
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, [0, 0])
    np.testing.assert_array_equal(many, [[0, 0], [10, 10], [20, 20]])
    mpc.reset()
    assert planner.resets == 1
    assert mpc.steps == 2
    assert 0 < mpc.planning_ms_per_step == 1e3 * mpc.planning_seconds / 2
    assert isinstance(mpc, Agent)


def test_a_double_integrator_is_brought_to_rest() -> None:
    """Under the true dynamics 60 steps of 0.1 s suffice from 1 m away with forces up to 1."""
    mpc, obs = agent(), np.array([1.0, 0.0])
    for _ in range(60):
        action = mpc.act(obs)
        assert -1 <= action[0] <= 1
        obs = MODEL.A.numpy() @ obs + MODEL.B.numpy() @ action
    assert np.abs(obs).max() < 0.1


def test_reset_forgets_the_last_episode() -> None:
    fresh, used = agent(3), agent(4)
    for _ in range(3):
        used.act(np.array([5.0, -1.0]))
    used.reset()
    used.generator.manual_seed(3)
    obs = np.array([0.3, 0.2])
    np.testing.assert_array_equal(fresh.act(obs), used.act(obs))


def test_an_observation_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match=r"Closed-v0 is not finite"):
        agent().act(np.array([np.nan, 0.0]))


class Held(Scripted):
    """As the scripted planner, but its decisions are held for three steps."""

    action_repeat = 3


def test_a_plan_is_acted_out_for_as_long_as_the_planner_holds_a_decision() -> None:
    planner = Held()
    mpc = MPC(MODEL, TASK, planner, torch.Generator())
    taken = [mpc.act(np.zeros((2, 2)))[:, 0].tolist() for _ in range(5)]
    assert taken == [[0, 10], [1, 11], [2, 12], [0, 10], [1, 11]]
    mpc.reset()  # mid-way: what waits is forgotten
    assert mpc.act(np.zeros(2)).tolist() == [0, 0]


def test_a_planner_that_says_nothing_is_asked_as_often_as_the_agent_wants() -> None:
    mpc = MPC(MODEL, TASK, Scripted(), torch.Generator(), action_repeat=2)
    assert [mpc.act(np.zeros(2)).tolist()[0] for _ in range(4)] == [0, 1, 0, 1]


def test_the_warm_start_moves_on_by_what_was_acted_out() -> None:
    """Two calls of a planner that holds 2 steps, against MPC: the same plans at steps 0 and 2."""
    box, obs = np.array([1.0], dtype=np.float32), np.array([0.5, 0.2], dtype=np.float32)
    settings: dict[str, Any] = {"horizon": 10, "action_repeat": 2, "samples": 20}
    mpc = MPC(MODEL, TASK, ICEM(-box, box, **settings), torch.Generator().manual_seed(0))
    planner, generator = ICEM(-box, box, **settings), torch.Generator().manual_seed(0)
    taken = [float(mpc.act(obs)[0]) for _ in range(4)]
    rows = torch.from_numpy(obs)[None]
    plans = [planner(MODEL, TASK, rows, generator)[0, :2, 0].tolist() for _ in range(2)]
    assert taken == [*plans[0], *plans[1]]
    assert plans[0][0] == plans[0][1]


@pytest.mark.parametrize(("planner", "repeat"), [(Held(), 2), (Scripted(), 0), (Scripted(), -1)])
def test_bad_action_repeats(planner: Scripted, repeat: int) -> None:
    with pytest.raises(InputError, match=f"action repeat {repeat}"):
        MPC(MODEL, TASK, planner, torch.Generator(), action_repeat=repeat)


def test_another_number_of_environments_amid_a_plan_is_refused() -> None:
    mpc = MPC(MODEL, TASK, Held(), torch.Generator())
    mpc.act(np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"3 environments amid a plan for 2"):
        mpc.act(np.zeros((3, 2)))


def test_around_a_prior_the_action_is_chosen_in_the_real_state_and_plans_start_anew() -> None:
    planner = Held()

    def prior(obs: Tensor, deviation: Tensor) -> Tensor:
        return 100 * obs + deviation

    mpc = MPC(MODEL, TASK, planner, torch.Generator(), prior=prior)
    states = [np.array([[t, -t], [0, 2 * t]], dtype=np.float64) for t in range(4)]
    taken = [mpc.act(state).tolist() for state in states]
    assert taken[1] == [[101, -99], [11, 211]]
    assert taken[3] == [[300, -300], [10, 610]]
    assert planner.resets == 2
