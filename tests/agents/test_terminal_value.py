"""The value at rest: against the Riccati equation of a known linear world, and in a real task."""

import gymnasium
import numpy as np
import pytest
import scipy.linalg
import torch

from mbrl_bilevel.agents.agent_spec import SimulatorSpec
from mbrl_bilevel.agents.planning_settings import mpc_settings
from mbrl_bilevel.agents.terminal_value import ACTION_COST, REST_STEPS, rest_value
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.simulator import Simulator
from mbrl_bilevel.envs.tasks import Task, get_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.protocols import Trajectories

# an unstable position and velocity, pushed by one force; the third dimension never moves
A = torch.tensor([[1.0, 0.1, 0.0], [0.3, 1.0, 0.0], [0.0, 0.0, 1.0]])
B = torch.tensor([[0.005], [0.1], [0.0]])
REST = torch.tensor([0.4, 0.0, 7.0])


class Starts(gymnasium.Env):
    """Resets near rest, and nothing else."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        near = REST.numpy() + 0.1 * self.np_random.normal(size=3) * [1, 1, 0]
        return near.astype(np.float32), {}


class Linear:
    """o' = REST + A (o - REST) + B a."""

    def __init__(self, A=A):
        self.A = A

    def trajectories(self, obs, actions, generator):
        states = [obs.unsqueeze(1).expand(-1, actions.shape[1], -1)]
        for act in actions.unbind(2):
            states.append(REST + (states[-1] - REST) @ self.A.T + act @ B.T)
        return Trajectories(torch.stack(states, 2)[None], None)


def quadratic(obs, act, next_obs):
    z = next_obs - REST
    return 5.0 - 2.0 * z[..., 0].square() - 0.5 * z[..., 1].square()


def never(next_obs):
    return torch.zeros(next_obs.shape[:-1], dtype=torch.bool)


def balance(reward=quadratic):
    return Task("Balance-v0", reward, never, ("x", "vel_x", "still"))


def test_value_solves_the_riccati_equation_of_the_linear_world():
    value = rest_value(Starts(), Linear(), balance(), torch.Generator().manual_seed(0))
    assert value.kept == (0, 1)
    torch.testing.assert_close(value.rest, REST[:2].double(), atol=1e-3, rtol=0)
    assert value.worth == pytest.approx(5.0 * REST_STEPS, rel=1e-3)
    # the price of an action is ACTION_COST of the largest cost, each for a deviation of usual size
    a, b, Q = A[:2, :2].double().numpy(), B[:2].double().numpy(), np.diag([2.0, 0.5])
    P = value.P.numpy()
    usual = [0.1, 0.1]
    price = ACTION_COST * max(np.diag(Q) * np.square(usual)) / 0.3**2 * 3
    exact = scipy.linalg.solve_discrete_are(a, b, Q, np.array([[price]]))
    np.testing.assert_allclose(P, exact, rtol=0.2, atol=0.02 * np.abs(exact).max())
    gain = np.linalg.solve(b.T @ P @ b + 1e-9, b.T @ P @ a)
    assert np.abs(np.linalg.eigvals(a - b @ gain)).max() < 1.0  # greedy in V, the world is stable


def test_value_falls_from_its_worth_at_rest_and_never_below_zero():
    value = rest_value(Starts(), Linear(), balance(), torch.Generator().manual_seed(0))
    at_rest = torch.cat([value.rest.float(), torch.tensor([-3.0])])
    assert value(at_rest).item() == pytest.approx(value.worth, rel=1e-6)
    away = at_rest + torch.tensor([0.5, 0.0, 0.0])
    assert value(away).item() == pytest.approx(value.worth - 0.25 * value.P[0, 0].item(), rel=1e-5)
    assert value(at_rest + 1e3).item() == 0.0


def test_where_rest_costs_the_value_has_no_floor():
    task = balance(lambda obs, act, next_obs: quadratic(obs, act, next_obs) - 6.0)
    value = rest_value(Starts(), Linear(), task, torch.Generator().manual_seed(0))
    assert value.worth == pytest.approx(-REST_STEPS, rel=1e-3)
    assert value(REST + 10.0).item() < 2 * value.worth


def test_a_constant_reward_still_gives_a_stabilising_value():
    task = balance(lambda obs, act, next_obs: torch.ones(next_obs.shape[:-1]))
    P = rest_value(Starts(), Linear(), task, torch.Generator().manual_seed(0)).P.numpy()
    a, b = A[:2, :2].double().numpy(), B[:2].double().numpy()
    gain = np.linalg.solve(b.T @ P @ b + 1e-9, b.T @ P @ a)
    assert np.abs(np.linalg.eigvals(a - b @ gain)).max() < 1.0


def test_a_world_that_no_action_steadies_is_refused():
    drifting = A.clone()
    drifting[2, 2] = 1.5  # grows, and nothing pushes it

    class Anywhere(Starts):
        def reset(self, *, seed=None, options=None):
            near, info = super().reset(seed=seed)
            near[2] += 0.1 * self.np_random.normal()
            return near, info

    with pytest.raises(InputError, match="--terminal-value rest"):
        rest_value(Anywhere(), Linear(drifting), balance(), torch.Generator().manual_seed(0))


def test_the_double_pendulum_stands_in_the_simulator():
    """Unstable by 1.5 a step: without the value every setting that was tried fell within 120."""
    env = make_env("InvertedDoublePendulum-v5")
    settings = mpc_settings(env.spec.id, simulator=True, samples=32)
    assert (settings.terminal_value, settings.planner.horizon) == ("rest", 4)
    agent = SimulatorSpec(settings).agent(env, env.spec.id, 0)
    obs, _ = env.reset(seed=0)
    for _ in range(60):
        obs, _, terminated, _, _ = env.step(agent.act(obs))
        assert not terminated
    env.close()


def test_cosines_are_left_out_of_the_double_pendulums_rest():
    env = make_env("InvertedDoublePendulum-v5")
    task = get_task("InvertedDoublePendulum-v5")
    value = rest_value(env, Simulator(env), task, torch.Generator().manual_seed(0))
    assert value.kept == (0, 1, 2, 5, 6, 7)
    env.close()
