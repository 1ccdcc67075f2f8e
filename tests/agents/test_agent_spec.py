"""Agents from their specs, in real environments."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.agent_spec import MPCSpec, SimulatorSpec
from mbrl_bilevel.agents.episode import run_episode
from mbrl_bilevel.agents.planning_settings import MPCSettings, mpc_settings
from mbrl_bilevel.agents.play_episode import PlayEpisode
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.planning.cem import CEM
from mbrl_bilevel.planning.settings import PLANNERS, CEMSettings, ScoringSettings

ENV = "InvertedPendulum-v5"
FAST: dict[str, Any] = {"horizon": 6, "samples": 16}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    made = DynamicsModel(
        4, 1, ModelSettings(members=2, hidden=(8,)), env_id=ENV, generator=generator
    )
    made.save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("planner", PLANNERS.names)
def test_episodes_with_a_learned_model_repeat_by_seed(model: Path, planner: str) -> None:
    settings = mpc_settings(ENV, planner, **FAST, disagreement=0.1, propagation="ts1")
    play = PlayEpisode(MPCSpec(model, settings), ENV, seed=3, max_steps=6)
    first, second = play(0), pickle.loads(pickle.dumps(play))(0)
    assert first.total_reward == second.total_reward
    assert first.length == second.length


def test_settings_reach_the_planner_the_scoring_and_the_model(model: Path) -> None:
    chosen: dict[str, Any] = {
        "pessimism": 0.5,
        "disagreement": 0.25,
        "particles": 6,
        "action_repeat": 2,
    }
    settings = mpc_settings(ENV, "cem", **FAST, **chosen, propagation="ts1", discount=0.9)
    agent = MPCSpec(model, settings).agent(make_env(ENV), ENV, seed=0)
    assert isinstance(agent.planner, CEM)
    ahead = agent.planner.lookahead
    scoring = ahead.scoring.settings
    assert (scoring.discount, scoring.pessimism, scoring.disagreement) == (0.9, 0.5, 0.25)
    assert (ahead.horizon, ahead.action_repeat, agent.action_repeat) == (6, 2, 2)
    assert isinstance(agent.model, Propagation)
    assert (agent.model.kind, agent.model.particles, agent.model.disagreement) == ("ts1", 6, True)


def test_bad_settings_are_refused(model: Path) -> None:
    env = make_env(ENV)
    with pytest.raises(InputError, match="particles 3"):  # of two elites
        MPCSpec(model, mpc_settings(ENV, particles=3)).agent(env, ENV, 0)
    with pytest.raises(InputError, match=r"pessimism 1\.0 in the simulator"):
        SimulatorSpec(MPCSettings(scoring=ScoringSettings(pessimism=1.0), model=None))


def test_the_oracle_knows_what_the_environment_will_pay() -> None:
    """The return that the plan promises is the one that is earned by acting it out."""
    env = make_env("HalfCheetah-v5")
    planner = CEMSettings(horizon=5, samples=32)
    agent = SimulatorSpec(MPCSettings(planner=planner, model=None)).agent(env, "HalfCheetah-v5", 0)
    obs, _ = env.reset(seed=0)
    rows = torch.as_tensor(obs, dtype=torch.float32)[None]
    plan = agent.planner(agent.model, agent.task, rows, agent.generator)
    promised = agent.model.trajectories(rows, plan[:, None], agent.generator).rewards
    assert promised is not None
    earned = [float(env.step(action.numpy())[1]) for action in plan[0]]
    np.testing.assert_allclose(promised[0, 0, 0].numpy(), earned, atol=1e-5)
    assert agent.task.reward is None


def test_the_oracle_balances_a_pole_that_idleness_drops() -> None:
    settings = mpc_settings(ENV, "icem", simulator=True, horizon=12, samples=24, elites=5)
    env = make_env(ENV)
    agent = SimulatorSpec(settings).agent(env, ENV, seed=0)
    assert run_episode(agent, env, seed=1, max_steps=60).length == 60
    env.reset(seed=1)
    idle = 0
    while idle < 60 and not env.step(np.zeros(1, dtype=np.float32))[2]:
        idle += 1
    assert idle < 50
