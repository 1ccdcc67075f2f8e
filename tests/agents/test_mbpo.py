"""MBPO: where its transitions come from, when it fits and branches, and how it goes on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.build import make_agent
from mbrl_bilevel.agents.policy_file import load_policy_folder
from mbrl_bilevel.agents.presets import updated
from mbrl_bilevel.agents.setting_groups import RolloutLength
from mbrl_bilevel.agents.settings import MBPOSettings
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.models.dynamics import DynamicsModel
from tests.agents.point import TASK
from tests.agents.small_agents import (
    IMAGINED,
    MODEL,
    POLICY,
    assert_continues,
    batches_of,
    mbpo,
    no_fit,
    paid,
    steps,
)


@pytest.mark.parametrize(("ratio", "real"), [(0.0, 0), (0.05, 1), (0.25, 4), (1.0, 16)])
def test_each_batch_has_its_share_of_real_transitions(monkeypatch, ratio, real):
    agent = mbpo(real_ratio=ratio, fit=no_fit, task=replace(TASK, reward=paid), start_steps=20)
    seen = batches_of(agent, monkeypatch)
    steps(agent, 24)
    assert len(seen) == 4
    for batch, *_ in seen:
        assert len(batch.reward) == 16
        assert int((batch.reward != IMAGINED).sum()) == real


def test_imagined_steps_count_all_that_follow_in_their_rollout_and_real_ones_do_not(monkeypatch):
    """Rollouts of 3 steps that pay 1 each, of which 0.5 is learned: sums of 0.9^k of them."""
    task = replace(
        TASK,
        reward=lambda obs, act, next_obs: torch.ones_like(obs[..., 0]),
        terminated=lambda next_obs: torch.zeros_like(next_obs[..., 0], dtype=torch.bool),
    )
    settings = {"real_ratio": 0.5, "reward_scale": 0.5, "start_steps": 125, "updates_per_step": 9}
    agent = mbpo(fit=no_fit, task=task, multi_step=True, discount=0.9, **settings)
    assert not agent.learner.networks.soft_values
    seen = batches_of(agent, monkeypatch)
    steps(agent, 127)
    scaled = 0.5 * agent.replay.in_order().reward
    for batch, *_ in seen:
        real, imagined = batch.reward[:8], batch.reward[8:]
        assert torch.isin(real, scaled).all()
        assert set(batch.terminated[:8].tolist()) <= {0.0, 1.0}
        n = torch.log(1 - batch.terminated[8:]) / math.log(0.9) + 1
        torch.testing.assert_close(imagined, 0.5 * (1 - 0.9**n) / (1 - 0.9))
    counts = torch.cat([torch.log(1 - b.terminated[8:]) / math.log(0.9) + 1 for b, *_ in seen])
    assert counts.round().unique().tolist() == [1, 2, 3]


@pytest.mark.parametrize(("imagine_every", "rounds"), [(7, 3), (3, 7), (14, 2)])
def test_fits_and_rollouts_keep_their_own_times(imagine_every, rounds):
    """The model is fitted to all real steps."""
    fitted = []
    agent = mbpo(
        fit=lambda data: fitted.append(len(data)) or {},
        start_steps=20,
        imagine_every=imagine_every,
    )
    steps(agent, 40)
    assert fitted == [20, 27, 34]
    assert agent.rollouts.replay.added == rounds * 10  # of one step each: step 100 is far


def test_policies_learn_from_the_latest_rounds_alone():
    """Two rounds of 10 rollouts of one step are kept: what was imagined first is gone."""
    agent = mbpo(fit=no_fit, start_steps=20, imagine_every=1, imagined_rounds=2)
    steps(agent, 21)
    first = agent.rollouts.replay.in_order().next_observation
    steps(agent, 3)
    held = agent.rollouts.sample(500).next_observation
    latest = agent.rollouts.replay.in_order().next_observation[-20:]
    assert (held.unsqueeze(1) == latest).all(-1).any(1).all()
    assert not (held.unsqueeze(1) == first).all(-1).any()


def test_metrics_name_the_model_the_rollouts_the_policy_and_real_episodes():
    agent = mbpo()
    steps(agent, 110)
    found = agent.metrics()
    assert {"model/held_out_nll", "model/fresh_rmse", "policy/q", "real/return"} <= found.keys()
    assert 1 <= found["rollout/rollout_length"] <= 3
    assert "rollout/rollout_length" not in agent.metrics()
    assert agent.metrics()["model/held_out_nll"] == found["model/held_out_nll"]  # the latest


@pytest.mark.parametrize("first", [40, 104])
def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, first):
    """Amid an episode, between two fits and two logs; two fits and longer rollouts follow."""
    again = assert_continues(lambda: mbpo(real_ratio=0.25), tmp_path, first, 116 - first)
    saved = load_policy_folder(tmp_path)
    assert saved.metadata["algorithm"] == "mbpo"
    assert not np.array_equal(saved.weights["w1"], again.policy().weights["w1"])
    assert DynamicsModel.load(tmp_path).env_id == "Point-v0"


def in_the_physics(**settings):
    """Of Pendulum-v1, whose rollouts the simulator makes."""
    small = {**POLICY, **MODEL, "rollouts": 10, "imagine_every": 7, "averaging_rate": 1.0}
    chosen = {"steps": 400, "start_steps": 30, "rollout_length": RolloutLength(1, 3, 40, 60)}
    found = updated(
        MBPOSettings(), **small, **{"multi_step": False, **chosen, **settings}, model="simulator"
    )
    return make_agent(found, "Pendulum-v1")


def test_the_simulator_makes_the_rollouts_in_the_models_place(tmp_path):
    """Every imagined transition is what the real environment does from there, reward included."""
    agent = in_the_physics()
    before = [p.detach().clone() for p in agent.model.network.parameters()]
    steps(agent, 70)
    imagined, env = agent.rollouts.replay.in_order(), make_env("Pendulum-v1").unwrapped
    assert len(imagined.reward) > 80
    env.reset()
    for obs, act, reward, after, terminated in zip(*(c[-40:] for c in imagined), strict=True):
        cosine, sine, speed = obs.double().tolist()
        env.state = np.array([math.atan2(sine, cosine), speed])
        real, paid_really, *_ = env.step(act.numpy())
        np.testing.assert_allclose(after, real, rtol=0, atol=1e-5)
        assert float(reward) == pytest.approx(float(paid_really), abs=1e-5)
        assert not terminated
    assert all(map(torch.equal, before, agent.model.network.parameters()))
    assert not any(name.startswith("model/") for name in agent.metrics())
    agent.save(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_an_agent_in_the_physics_goes_on_from_a_checkpoint(tmp_path):
    assert_continues(in_the_physics, tmp_path, 45, 20)
