"""MPC around a policy, from its settings."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.agent_spec import MPCSpec, SimulatorSpec
from mbrl_bilevel.agents.build_mpc import mpc_in_model
from mbrl_bilevel.agents.critic_file import CriticValue
from mbrl_bilevel.agents.mpc import MPC
from mbrl_bilevel.agents.planning_settings import mpc_settings
from mbrl_bilevel.agents.trained_policy import load_prior
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.tasks import get_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.planning.mppi import MPPI
from tests.agents.test_trained_policy import saved

ENV = "Hopper-v5"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    size = ModelSettings(members=2, hidden=(8,))
    DynamicsModel(11, 3, size, env_id=ENV, generator=generator).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("planner", ["mppi", "icem", "cem"])
def test_without_deviations_the_policy_acts(model: Path, tmp_path: Path, planner: str) -> None:
    run = saved(tmp_path / "run")
    chosen = {"prior": str(run), "init_std": 1e-6, "horizon": 3, "samples": 12}
    env = make_env(ENV)
    obs = env.reset(seed=0)[0].astype(np.float32)
    expected = load_prior(str(run), env, ENV).policy(torch.from_numpy(obs))
    settings = mpc_settings(ENV, planner, **chosen)
    found = MPCSpec(model, settings).agent(env, ENV, 0).act(obs)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    oracle = SimulatorSpec(mpc_settings(ENV, planner, simulator=True, **chosen))
    np.testing.assert_allclose(oracle.agent(env, ENV, 0).act(obs), expected, atol=1e-4)


def test_deviations_are_searched_within_half_of_the_box_and_end_in_the_critic(
    model: Path, tmp_path: Path
) -> None:
    run = saved(tmp_path / "run")
    settings = mpc_settings(ENV, "mppi", prior=str(run), terminal_value="critic")
    agent = MPCSpec(model, settings).agent(make_env(ENV), ENV, 0)
    assert isinstance(agent, MPC)
    assert isinstance(agent.planner, MPPI)
    assert isinstance(agent.model, Propagation)
    ahead = agent.planner.lookahead
    assert (ahead.low.tolist(), ahead.high.tolist()) == ([-1.0] * 3, [1.0] * 3)
    assert isinstance(ahead.scoring.terminal_value, CriticValue)
    assert agent.model.prior is agent.prior is not None
    assert agent.model.kind == "mean"


def test_another_prior_than_the_settings_name(model: Path) -> None:
    env, made = make_env(ENV), DynamicsModel.load(model)
    settings = mpc_settings(ENV, "mppi", prior="medium")
    with pytest.raises(InputError, match="around --prior medium needs that policy"):
        mpc_in_model(made, env, get_task(ENV), settings, torch.Generator())
