"""A policy's mean in torch is the one that acts in numpy."""

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.behaviour import BehaviourPolicy, load_policy
from mbrl_bilevel.agents.policy_mean import PolicyMean


def actor(layers: int, activation: str) -> BehaviourPolicy:
    rng = np.random.default_rng(layers)
    sizes = [3, *[5] * layers]
    weights = {}
    for i in range(1, layers + 1):
        weights[f"w{i}"] = rng.standard_normal((sizes[i], sizes[i - 1]), dtype=np.float32)
        weights[f"b{i}"] = rng.standard_normal(sizes[i], dtype=np.float32)
    for head in ("mu", "log_std"):
        weights[f"w_{head}"] = rng.standard_normal((2, 5), dtype=np.float32)
        weights[f"b_{head}"] = rng.standard_normal(2, dtype=np.float32)
    weights |= {
        "action_low": np.array([-1, -0.5], np.float32),
        "action_high": np.array([3, 0], np.float32),
    }
    return BehaviourPolicy(weights, {"env_id": "Point-v0", "activation": activation})


@pytest.mark.parametrize(("layers", "activation"), [(1, "relu"), (2, "relu"), (3, "silu")])
def test_it_is_the_policy_without_noise(layers: int, activation: str) -> None:
    policy = actor(layers, activation)
    obs = np.random.default_rng(0).standard_normal((4, 6, 3)).astype(np.float32)
    mean = PolicyMean(policy)
    expected = policy(obs.reshape(24, 3)).reshape(4, 6, 2)
    np.testing.assert_allclose(mean(torch.from_numpy(obs)).numpy(), expected, atol=1e-5)
    assert (mean.obs_dim, mean.act_dim) == (3, 2)
    unit = mean.unit(torch.from_numpy(obs)).numpy()
    np.testing.assert_allclose([1, -0.25] + [2, 0.25] * unit, expected, atol=1e-5)


def test_a_shipped_policy_in_double_precision() -> None:
    policy = load_policy("Hopper-v5", "medium")
    assert isinstance(policy, BehaviourPolicy)
    obs = torch.randn(7, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = PolicyMean(policy)(obs)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), policy(obs.numpy()), atol=1e-5)
