"""Policies and critics of runs, for the environment that they act in."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.behaviour import BehaviourPolicy, load_policy
from mbrl_bilevel.agents.policy_learner import PolicyLearner
from mbrl_bilevel.agents.setting_groups import PolicySettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.agents.trained_policy import load_prior
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError

ENV = "Hopper-v5"


def saved(folder: Path, env_id: str = ENV, **settings: Any) -> Path:
    """A run's policy and critics, untrained."""
    made = PolicyLearner(
        replace(PolicySettings(policy_hidden=8), **settings),
        Spaces.of(make_env(env_id)),
        torch.Generator().manual_seed(0),
    )
    folder.mkdir(exist_ok=True)
    made.save(folder, {"env_id": env_id, "algorithm": "bc"})
    return folder


def test_a_prior_is_a_run_folder_or_a_shipped_policy(tmp_path: Path) -> None:
    env, obs = make_env(ENV), np.ones((2, 11), np.float32)
    shipped = load_prior("medium", env, ENV)
    policy = load_policy(ENV, "medium")
    assert isinstance(policy, BehaviourPolicy)
    np.testing.assert_allclose(shipped.policy(torch.from_numpy(obs)), policy(obs), atol=1e-5)
    folder = saved(tmp_path / "run", discount=0.9)
    own = load_prior(str(folder), env, EnvSpec(ENV))
    value = own.critic(0.9)
    assert value(torch.from_numpy(obs)).shape == (2,)
    assert value.policy is own.policy


def test_priors_that_cannot_be(tmp_path: Path) -> None:
    env = make_env(ENV)
    cheetah = saved(tmp_path / "cheetah", "HalfCheetah-v5")
    empty = tmp_path / "empty"
    empty.mkdir()
    for name, words in (
        (str(cheetah), r"was trained for HalfCheetah-v5 \(17 .* not for Hopper-v5"),
        (str(empty), "holds no policy"),
        ("no/where", "--prior no/where is no run folder of train-agent, and no policy"),
        ("random", "--prior random: random actions have no mean"),
    ):
        with pytest.raises(InputError, match=words):
            load_prior(name, env, ENV)
    wide = make_env(EnvSpec(ENV, {"exclude_current_positions_from_observation": False}))
    with pytest.raises(InputError, match="with 11 observation and 3 action dimensions"):
        load_prior("medium", wide, ENV)


def test_critics_of_another_discount_or_of_no_run(tmp_path: Path) -> None:
    env = make_env(ENV)
    own = load_prior(str(saved(tmp_path, discount=0.995)), env, ENV)
    with pytest.raises(InputError, match=r"--discount 0\.99: .* plan with --discount 0\.995"):
        own.critic(0.99)
    with pytest.raises(InputError, match="shipped policy medium has no critics"):
        load_prior("medium", env, ENV).critic(0.99)
