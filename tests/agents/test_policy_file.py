"""A policy in a file: the same when it is read, or one sentence."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mbrl_bilevel.agents.actor import Actor
from mbrl_bilevel.agents.agent_spec import TrainedPolicySpec
from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.policy_file import FILE, load_policy_folder, save_policy
from mbrl_bilevel.agents.squashed_actor import SquashedActor
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.standardizer import Standardizer
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError

ENV = "InvertedPendulum-v5"  # 4 observations, 1 action from -3 to 3
METADATA = {"env_id": ENV, "policy": "trained", "algorithm": "sac"}


def weights(obs_dim=4, act_dim=1, hidden=6):
    generator = torch.Generator().manual_seed(0)
    one = torch.ones(act_dim)
    return Actor(obs_dim, -3 * one, 3 * one, hidden, generator).weights()


@pytest.fixture
def folder(tmp_path):
    save_policy(tmp_path, weights(), METADATA)
    return tmp_path


def rewritten(folder, **changes):
    """The folder's policy with some of its arrays replaced, or (None) left out."""
    arrays = {**weights(), **changes}
    save_policy(folder, {k: v for k, v in arrays.items() if v is not None}, METADATA)


def test_what_was_saved_is_read(folder):
    policy = load_policy_folder(folder)
    assert policy.metadata == METADATA
    assert policy.weights.keys() == weights().keys()
    for name, array in weights().items():
        np.testing.assert_array_equal(policy.weights[name], array)


def test_the_policy_acts_by_the_mean(folder):
    """From the formula, one layer at a time in float64."""
    env = make_env(ENV)
    obs, _ = env.reset(seed=0)
    w = {name: array.astype(np.float64) for name, array in weights().items()}
    hidden = np.maximum(w["w1"] @ obs + w["b1"], 0)
    hidden = np.maximum(w["w2"] @ hidden + w["b2"], 0)
    expected = 3 * np.tanh(w["w_mu"] @ hidden + w["b_mu"])
    agent = TrainedPolicySpec(folder).agent(env, ENV, seed=0)
    for _ in range(2):
        np.testing.assert_allclose(agent.act(obs), expected, atol=1e-5)


def bad_bytes(path: Path, kind: str) -> None:
    data = bytearray(path.read_bytes())
    if kind == "flipped":
        data[-10] ^= 1
    path.write_bytes({"cut": data[:-20], "empty": b"", "text": b"hello"}.get(kind, data))


@pytest.mark.parametrize("kind", ["flipped", "cut", "empty", "text"])
def test_a_damaged_file(folder, kind):
    bad_bytes(folder / FILE, kind)
    with pytest.raises(InputError, match=r"^the policy .* is damaged \(.+\); train it again$"):
        load_policy_folder(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"w2": np.zeros((6, 5), np.float32)}, r"w2 has shape \[6, 5\], which fits no other"),
        ({"w_mu": np.zeros((2, 6), np.float32)}, r"which fits no other"),
        ({"b1": np.zeros((1, 6), np.float32)}, r"b1 has shape \[1, 6\]"),
        ({"b_mu": np.full(1, np.nan, np.float32)}, "b_mu is not all finite float32"),
        ({"action_high": np.full(1, np.inf, np.float32)}, "action_high is not all finite"),
        ({"w1": np.zeros((6, 4))}, "w1 is not all finite float32"),
        ({"b_log_std": None}, "b_log_std is missing"),
        ({"w2": None}, "b2 is part of no layer"),
        ({"w1": None}, "w1 is missing|is part of no layer"),
        ({"w_raw_std": np.zeros((1, 6), np.float32)}, "is part of no layer"),
    ],
)
def test_arrays_that_make_no_policy(folder, changes, words):
    rewritten(folder, **changes)
    with pytest.raises(InputError, match=words):
        load_policy_folder(folder)


def test_a_policy_of_three_layers_and_a_softplus_deviation(tmp_path):
    actor = SquashedActor(
        4,
        torch.full((1,), -3.0),
        torch.full((1,), 3.0),
        (6, 5, 4),
        torch.Generator().manual_seed(0),
    )
    saved, texts = actor.weights(Standardizer(4)), METADATA | {"activation": "silu"}
    save_policy(tmp_path, saved, texts)
    policy = load_policy_folder(tmp_path)
    assert policy.weights.keys() == saved.keys()
    assert policy.metadata == texts
    obs = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    for noise in (None, 3):
        ours, theirs = (
            p(obs, noise if noise is None else np.random.default_rng(noise))
            for p in (BehaviourPolicy(saved, texts), policy)
        )
        np.testing.assert_array_equal(ours, theirs)
    with torch.no_grad():
        mean, _ = actor(torch.from_numpy(obs))
    np.testing.assert_allclose(policy(obs), 3 * mean.tanh(), atol=1e-5)


def test_an_activation_that_nobody_knows(tmp_path):
    save_policy(tmp_path, weights(), METADATA | {"activation": "sine"})
    with pytest.raises(InputError, match=r"is damaged \(its activation 'sine' is unknown\)"):
        load_policy_folder(tmp_path)


def test_a_file_that_names_no_environment(tmp_path):
    save_file({name: torch.from_numpy(a) for name, a in weights().items()}, tmp_path / FILE)
    with pytest.raises(InputError, match=r"is damaged \(it names no environment\)"):
        load_policy_folder(tmp_path)


def test_no_policy_there(tmp_path):
    with pytest.raises(InputError, match="holds no policy"):
        load_policy_folder(tmp_path)


@pytest.mark.parametrize(
    ("env_id", "obs_dim"), [("Pendulum-v1", 4), ("InvertedDoublePendulum-v5", 4), (ENV, 5)]
)
def test_a_policy_of_another_environment_or_size(tmp_path, env_id, obs_dim):
    save_policy(tmp_path, weights(obs_dim), METADATA)
    env: gymnasium.Env = make_env(env_id)
    with pytest.raises(InputError, match=f"was trained for {ENV} .*, not for {env_id}"):
        TrainedPolicySpec(tmp_path).agent(env, env_id, 0)


@pytest.mark.situation("refused")
def test_a_policy_of_the_same_environment_with_other_arguments(tmp_path):
    spec = EnvSpec("Pendulum-v1", {"g": 2.0})
    metadata = METADATA | {"env_id": spec.id, "env": json.dumps(spec.to_plain())}
    save_policy(tmp_path, weights(3), metadata)
    with pytest.raises(InputError, match=r"was trained for Pendulum-v1.g=2.0. .*, not for Pendul"):
        TrainedPolicySpec(tmp_path).agent(make_env("Pendulum-v1"), "Pendulum-v1", 0)
    for policy, where in (
        (TrainedPolicySpec(tmp_path), spec),
        (TrainedPolicySpec(tmp_path, other_env=True), EnvSpec("Pendulum-v1")),
    ):
        agent = policy.agent(make_env(where), where, 0)
        assert agent.act(np.zeros(3)).shape == (1,)


def test_a_policy_whose_environment_is_damaged(tmp_path):
    save_policy(tmp_path, weights(), METADATA | {"env": "[1]"})
    with pytest.raises(InputError, match=r"is damaged .an environment is described by"):
        TrainedPolicySpec(tmp_path).agent(make_env(ENV), ENV, 0)


def test_the_same_policy_is_the_same_bytes(folder):
    """However often it is written: safetensors alone would shuffle the texts."""
    first = (folder / FILE).read_bytes()
    for _ in range(8):
        save_policy(folder, weights(), dict(reversed(METADATA.items())))
        assert (folder / FILE).read_bytes() == first
