"""The shipped actors act as their formula says and earn what their metadata say."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mbrl_bilevel.agents import behaviour
from mbrl_bilevel.agents.behaviour import BehaviourPolicy, load_policy, shipped_policies
from mbrl_bilevel.agents.collect import roll_out
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError

SHIPPED = sorted(shipped_policies())


def test_what_is_shipped_is_small() -> None:
    assert [
        (env, name)
        for env in ("HalfCheetah-v5", "Hopper-v5")
        for name in ("good", "medium", "simple")
    ] == SHIPPED
    folder = Path(behaviour.__file__).parent / "policies"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2e6


@pytest.mark.parametrize(("env_id", "name"), SHIPPED)
def test_actions_follow_the_formula_one_observation_at_a_time(env_id: str, name: str) -> None:
    folder = Path(behaviour.__file__).parent / "policies"
    w = load_file(folder / f"{env_id.lower()}-{name}.safetensors")
    wide = {key: value.astype(np.float64) for key, value in w.items()}
    policy = load_policy(env_id, name)
    observations = np.random.default_rng(0).standard_normal((7, w["w1"].shape[1]))
    noise = np.random.default_rng(1).standard_normal((7, len(w["b_mu"])), dtype=np.float32)
    expected: dict[str, list[np.ndarray]] = {"deterministic": [], "sampled": []}
    for observation, epsilon in zip(observations, noise, strict=True):
        h = np.array([max(0.0, v) for v in wide["w1"] @ observation + wide["b1"]])
        h = np.array([max(0.0, v) for v in wide["w2"] @ h + wide["b2"]])
        mean = wide["w_mu"] @ h + wide["b_mu"]
        log_std = np.clip(wide["w_log_std"] @ h + wide["b_log_std"], -20, 2)
        # The boxes of both tasks are [-1, 1], where the formula is tanh itself.
        expected["deterministic"].append(np.tanh(mean))
        expected["sampled"].append(np.tanh(mean + np.exp(log_std) * epsilon))
    np.testing.assert_allclose(policy(observations), expected["deterministic"], atol=2e-5)
    sampled = policy(observations, np.random.default_rng(1))
    np.testing.assert_allclose(sampled, expected["sampled"], atol=2e-5)
    assert sampled.dtype == np.float32


def test_actions_fill_a_box_that_is_not_symmetric() -> None:
    weights = {
        "w1": np.zeros((2, 3)),
        "b1": np.zeros(2),
        "w2": np.zeros((2, 2)),
        "b2": np.zeros(2),
        "w_mu": np.zeros((3, 2)),
        "b_mu": np.array([0.0, 50.0, -50.0]),
        "action_low": np.array([-1.0, 2.0, 2.0]),
        "action_high": np.array([3.0, 4.0, 4.0]),
    }
    action = BehaviourPolicy({k: v.astype(np.float32) for k, v in weights.items()}, {})
    np.testing.assert_allclose(action(np.zeros((1, 3))), [[1.0, 4.0, 2.0]])


@pytest.mark.parametrize(
    ("env_id", "name", "published", "deviation"),
    [
        ("HalfCheetah-v5", "simple", 2284, 126),
        ("HalfCheetah-v5", "medium", 4928, 63),
        ("Hopper-v5", "simple", 490, 4),
    ],
)
def test_an_episode_earns_about_what_was_measured_in_training(
    env_id: str, name: str, published: float, deviation: float
) -> None:
    """One episode within 5 deviations of the returns noted (5 episodes) when it was trained."""
    policy = load_policy(env_id, name)
    rollouts = roll_out(make_env(env_id), policy, 1000, seed=3, deterministic=True)
    assert abs(rollouts.complete_returns[0] - published) < 5 * deviation
    mean, spread = (
        float(policy.metadata[f"return_deterministic{suffix}"]) for suffix in ("", "_std")
    )
    assert abs(rollouts.complete_returns[0] - mean) < 5 * spread


def test_random_actions_are_uniform_in_the_box() -> None:
    policy = load_policy("Hopper-v5", "random")
    actions = policy(np.zeros((20_000, 11)), np.random.default_rng(0))
    assert actions.dtype == np.float32
    # Uniform on [-1, 1]: mean 0 +- 0.0041, variance 1/3 +- 0.0021; 5 standard errors.
    np.testing.assert_allclose(actions.mean(0), 0, atol=0.021)
    np.testing.assert_allclose(actions.var(0), 1 / 3, atol=0.011)
    assert np.abs(actions).max() <= 1


def test_expert_is_the_best_shipped_one() -> None:
    for env_id in ("HalfCheetah-v5", "Hopper-v5"):
        best = max(
            float(meta["return_deterministic"])
            for (env, _), meta in shipped_policies().items()
            if env == env_id
        )
        assert float(load_policy(env_id, "expert").metadata["return_deterministic"]) == best


@pytest.mark.parametrize(
    ("env_id", "name", "message"),
    [
        ("Hopper-v5", "great", "choose one of: random, good, medium, simple, expert"),
        ("Swimmer-v5", "expert", "shipped for Swimmer-v5; choose one of: random$"),
        ("Pendulumm-v1", "random", "unknown environment"),
    ],
)
def test_policies_that_there_are_not(env_id: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_policy(env_id, name)
