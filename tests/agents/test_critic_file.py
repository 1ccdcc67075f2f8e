"""Critics beside a policy: what they value, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.critic_file import FILE, load_critic, save_critic
from mbrl_bilevel.agents.policy_learner import PolicyLearner
from mbrl_bilevel.agents.policy_mean import PolicyMean
from mbrl_bilevel.agents.setting_groups import PolicySettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.tensor_files import load_tensors, save_tensors
from tests.agents.point import point
from tests.agents.small_agents import metadata

SETTINGS = PolicySettings(policy_hidden=8, discount=0.9, reward_scale=0.25)


def learner(settings: PolicySettings = SETTINGS) -> PolicyLearner:
    return PolicyLearner(settings, Spaces.of(point()), torch.Generator().manual_seed(1))


def mean_of(made: PolicyLearner) -> PolicyMean:
    return PolicyMean(BehaviourPolicy(made.weights(), metadata("bc")))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_state_is_worth_the_smaller_q_of_the_mean_action(
    tmp_path: Path, layer_norm: bool
) -> None:
    made = learner(replace(SETTINGS, critic_layer_norm=layer_norm))
    made.save(tmp_path, metadata("bc"))
    value = load_critic(tmp_path, mean_of(made))
    obs = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    policy = BehaviourPolicy(made.weights(), metadata("bc"))
    rows = obs.reshape(15, 2)
    act = torch.from_numpy(policy(rows.numpy()))
    q = made.networks.value(made.networks.critic, rows, act)
    expected = torch.minimum(q[0], q[1]) / 0.25
    np.testing.assert_allclose(value(obs).reshape(15), expected.detach(), atol=1e-5)
    assert value.discount == 0.9
    assert value(obs.double()).dtype == torch.float64


def test_no_critics(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no critics \(critic\.safetensors\); name by"):
        load_critic(tmp_path, mean_of(learner()))


def test_critics_of_another_policy_are_refused(tmp_path: Path) -> None:
    made = learner()
    save_critic(tmp_path, made.networks.critic, SETTINGS)
    tensors, texts = load_tensors(tmp_path / FILE)
    first = tensors["layers.0.weight"]
    wide = torch.cat([first, first[:, :1]], 1)
    save_tensors(tmp_path / FILE, tensors | {"layers.0.weight": wide}, texts)
    with pytest.raises(InputError, match="4 inputs and 1 outputs fit no policy beside them"):
        load_critic(tmp_path, mean_of(made))


@pytest.mark.parametrize(
    ("tensors", "texts"),
    [
        ({}, {"discount": "2.0"}),
        ({}, {"discount": "much"}),
        ({}, {"reward_scale": "0"}),
        ({}, {"activation": "sine"}),
        ({"layers.1.bias": torch.full((2, 1, 8), torch.nan)}, {}),
        ({"layers.1.bias": torch.zeros(2, 1, 9)}, {}),
        ({"layers.1.weight": torch.zeros(8)}, {}),
        ({"else": torch.zeros(1), "more": torch.zeros(1)}, {}),
    ],
)
def test_damaged_critics(tmp_path: Path, tensors: dict, texts: dict) -> None:
    made = learner()
    save_critic(tmp_path, made.networks.critic, SETTINGS)
    whole, said = load_tensors(tmp_path / FILE)
    save_tensors(tmp_path / FILE, whole | tensors, said | texts)
    with pytest.raises(InputError, match="are damaged"):
        load_critic(tmp_path, mean_of(made))
