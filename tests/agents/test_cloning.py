"""Behaviour cloning: the data's policy and its values, and how it goes on."""

from typing import Any

import numpy as np
import torch

from mbrl_bilevel.agents.cloning import Cloning
from mbrl_bilevel.agents.critic_file import load_critic
from mbrl_bilevel.agents.policy_file import load_policy_folder
from mbrl_bilevel.agents.policy_mean import PolicyMean
from mbrl_bilevel.agents.presets import updated
from mbrl_bilevel.agents.settings import CloningSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.transitions import Transitions
from tests.agents.point import point
from tests.agents.small_agents import (
    POLICY,
    assert_continues,
    batches_of,
    metadata,
    random_data,
    steps,
)


def cloning(seed: int = 0, *, data: Transitions | None = None, **settings: Any) -> Cloning:
    found = updated(CloningSettings(), **{**POLICY, **settings})
    return Cloning(
        found,
        data or random_data(60),
        Spaces.of(point()),
        torch.Generator().manual_seed(seed),
        metadata=metadata("bc"),
    )


def noisy_policy(count: int) -> Transitions:
    """Episodes of one step that end with reward 3; actions around 0.4 x_0 - 0.2."""
    generator = torch.Generator().manual_seed(5)
    obs = torch.randn(count, 2, generator=generator).clamp(-1, 1)
    noise = 0.1 * torch.randn(count, 1, generator=generator)
    action = (0.4 * obs[:, :1] - 0.2 + noise).clamp(-1, 0.5)
    ends = torch.ones(count, dtype=torch.bool)
    reward = torch.full((count,), 3.0)
    return Transitions(obs, action, reward, obs, ends, ~ends, torch.arange(count))


def test_it_finds_the_mean_action_of_noisy_data_and_the_return(tmp_path) -> None:
    settings = {"policy_hidden": 32, "policy_batch_size": 256, "averaging_rate": 0.02}
    agent = cloning(data=noisy_policy(2_000), policy_learning_rate=3e-3, **settings)
    steps(agent, 500)
    agent.save(tmp_path)
    policy = load_policy_folder(tmp_path)
    assert policy.metadata["algorithm"] == "bc"
    obs = np.random.default_rng(0).uniform(-1, 1, (200, 2)).astype(np.float32)
    error = policy(obs)[:, 0] - (0.4 * obs[:, 0] - 0.2)
    # 0.1 of noise over 2,000 rows leaves 0.01 at most to a smooth fit; 0.03 is for the network.
    assert np.sqrt(np.square(error).mean()) < 0.03
    value = load_critic(tmp_path, PolicyMean(policy))(torch.from_numpy(obs))
    torch.testing.assert_close(value, torch.full((200,), 3.0), atol=0.1, rtol=0)


def test_every_update_imitates_and_values_hold_no_entropy(monkeypatch) -> None:
    agent = cloning(updates_per_step=2)
    seen = batches_of(agent, monkeypatch)
    steps(agent, 3)
    assert [how for _, how, _ in seen] == [{"imitate": True}] * 6
    assert not agent.learner.networks.soft_values


def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path) -> None:
    again = assert_continues(cloning, tmp_path, 5, 6)
    saved = load_policy_folder(tmp_path)
    assert not np.array_equal(saved.weights["w1"], again.policy().weights["w1"])
