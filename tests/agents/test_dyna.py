"""Where a Dyna agent's transitions come from, when it is lost, and how it goes on."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents import dyna
from mbrl_bilevel.agents.dyna import Dyna
from mbrl_bilevel.agents.policy_file import load_policy_folder
from mbrl_bilevel.agents.real_env import RealEnv
from mbrl_bilevel.agents.sac import SAC
from mbrl_bilevel.agents.world import LengthSchedule, World
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.scripts.agent_model import refit
from mbrl_bilevel.training.divergence import TrainingDiverged
from tests.agents.point import TASK, point

LOW, HIGH = torch.tensor([-1.0]), torch.tensor([0.5])
IMAGINED = 1000.0  # a reward that no real step pays


def paid(obs, act, next_obs):
    return torch.full_like(obs[..., 0], IMAGINED)


def make(kind, *, seed=0, learn=None, task=TASK, **settings):
    generator = torch.Generator().manual_seed(seed)
    env, world = point(), None
    replay = Replay(400, 2, 1)
    if kind != "sac":
        model = DynamicsModel(2, 1, members=2, hidden=(8,), env_id="Point-v0", generator=generator)
        world = World(
            model,
            task,
            learn or partial(refit, ObjectiveSpec(), None, 5, generator),
            generator,
            observation_space=env.observation_space,
            action_space=env.action_space,
            rollouts=10,
            length=LengthSchedule(1, 3, 100, 120),
        )
    if kind == "mopo":
        replay.add(random_data(60))
    sac = SAC(2, LOW, HIGH, generator, hidden=8)
    return Dyna(
        sac,
        replay,
        generator,
        env=None if kind == "mopo" else RealEnv(env, seed),
        world=world,
        metadata={"env_id": "Point-v0", "algorithm": kind},
        **{"start_steps": 101, "refit_every": 7, "imagine_every": 7, "batch_size": 16, **settings},
    )


def random_data(count):
    generator = torch.Generator().manual_seed(3)
    obs, after = torch.randn(2, count, 2, generator=generator).clamp(-1, 1)
    action = LOW + 1.5 * torch.rand(count, 1, generator=generator)
    return Batch(obs, action, -after[:, 0].square(), after, torch.zeros(count))


def no_fit(model, data):
    return {}


def steps(agent, count):
    for _ in range(count):
        agent.train_step()


def batches_of(agent, monkeypatch):
    """The batches that its policy learns from, and the metrics of each update."""
    seen, update = [], agent.sac.update

    def spy(batch, **how):
        seen.append((batch, update(batch, **how)))
        return seen[-1][1]

    monkeypatch.setattr(agent.sac, "update", spy)
    return seen


@pytest.mark.parametrize(("ratio", "real"), [(0.0, 0), (0.05, 1), (0.25, 4), (1.0, 16)])
def test_each_batch_has_its_share_of_real_transitions(monkeypatch, ratio, real):
    task = replace(TASK, reward=paid)
    agent = make("mbpo", real_ratio=ratio, learn=no_fit, task=task, start_steps=20)
    seen = batches_of(agent, monkeypatch)
    steps(agent, 24)
    for batch, _ in seen:
        assert len(batch.reward) == 16
        assert int((batch.reward != IMAGINED).sum()) == real


@pytest.mark.parametrize("imitate_steps", [0, 1])
def test_a_termination_costs_and_every_reward_is_scaled(monkeypatch, imitate_steps):
    """Real and imagined: the same first batch with both and without."""
    batches = []
    for settings in ({}, {"termination_cost": 2.5, "reward_scale": 0.25}):
        agent = make("mopo", real_ratio=0.5, imitate_steps=imitate_steps, **settings)
        agent.replay.rows[::2, -1] = 1.0  # terminated
        seen = batches_of(agent, monkeypatch)
        steps(agent, 1)
        batches.append(seen[0][0])
    plain, costly = batches
    assert set(plain.terminated.tolist()) == {0.0, 1.0}
    torch.testing.assert_close(costly.reward, 0.25 * (plain.reward - 2.5 * plain.terminated))


def test_imagined_steps_count_all_that_follow_in_their_rollout_and_real_ones_do_not(monkeypatch):
    """Rollouts of 3 steps that pay 1 each, of which 0.5 is learned: sums of 0.9^k of them."""
    task = replace(
        TASK,
        reward=lambda obs, act, next_obs: torch.ones_like(obs[..., 0]),
        terminated=lambda next_obs: torch.zeros_like(next_obs[..., 0], dtype=torch.bool),
    )
    settings = {"real_ratio": 0.5, "reward_scale": 0.5, "start_steps": 125, "updates_per_step": 9}
    agent = make("mbpo", learn=no_fit, task=task, multi_step=True, **settings)
    agent.sac.discount = 0.9
    seen = batches_of(agent, monkeypatch)
    steps(agent, 127)
    scaled = 0.5 * agent.replay.in_order().reward
    for batch, _ in seen:
        real, imagined = batch.reward[:8], batch.reward[8:]
        assert torch.isin(real, scaled).all()
        assert set(batch.terminated[:8].tolist()) <= {0.0, 1.0}
        n = torch.log(1 - batch.terminated[8:]) / math.log(0.9) + 1
        torch.testing.assert_close(imagined, 0.5 * (1 - 0.9**n) / (1 - 0.9))
    counts = torch.cat([torch.log(1 - b.terminated[8:]) / math.log(0.9) + 1 for b, _ in seen])
    assert counts.round().unique().tolist() == [1, 2, 3]


@pytest.mark.parametrize("share", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("added", [40, 400, 530])
def test_a_share_of_rollouts_begins_in_recent_states(monkeypatch, share, added):
    """Before the ring is full, when it is, and wrapped around; 4 errors of 2,000 draws allowed."""
    monkeypatch.setattr(dyna, "RECENT", 20)
    agent = make("mbpo", recent_starts=share)
    place = torch.arange(float(added))
    nothing = torch.zeros(added)
    both = place.unsqueeze(-1).expand(-1, 2)
    agent.replay.add(Batch(both, nothing.unsqueeze(-1), nothing, both, nothing))
    drawn = agent._starts(2_000)[:, 0]
    held = min(added, 400)
    assert drawn.min() >= added - (held if share < 1 else 20)
    assert drawn.max() == added - 1
    expected = share + (1 - share) * 20 / held
    error = (expected * (1 - expected) / 2_000) ** 0.5
    assert (drawn >= added - 20).float().mean().item() == pytest.approx(expected, abs=4 * error)


def test_random_steps_come_first_and_teach_nothing(monkeypatch):
    """Uniform in the box: mean -0.25 +- 0.043, variance 0.1875 +- 0.017 of 100; 4 errors."""
    agent = make("sac", start_steps=100, updates_per_step=3)
    with torch.no_grad():  # an actor that always does the same
        for parameter in agent.sac.actor.parameters():
            parameter.zero_()
        agent.sac.actor.network.linear_layers()[-1].bias[0, 0] = torch.tensor([0.7, -25.0])
    seen = batches_of(agent, monkeypatch)
    steps(agent, 100)
    assert not seen
    action = agent.replay.in_order().action[:, 0]
    assert action.mean().item() == pytest.approx(-0.25, abs=4 * 0.043)
    assert action.var().item() == pytest.approx(0.1875, abs=4 * 0.017)
    assert (action >= LOW).all()
    assert (action <= HIGH).all()
    steps(agent, 1)
    assert len(seen) == 3
    own = -0.25 + 0.75 * math.tanh(0.7)
    assert agent.replay.in_order().action[-1, 0].item() == pytest.approx(own, abs=1e-5)
    steps(agent, 4)
    assert len(seen) == 15
    assert len(agent.replay) == agent.step == 105


@pytest.mark.parametrize(("imagine_every", "rounds"), [(7, 3), (3, 7), (14, 2)])
def test_fits_and_rollouts_keep_their_own_times(imagine_every, rounds):
    """The model is fitted to all real steps."""
    fitted = []
    agent = make(
        "mbpo", learn=lambda model, data: fitted.append(len(data)) or {},
        start_steps=20, imagine_every=imagine_every,
    )  # fmt: skip
    steps(agent, 40)
    assert fitted == [20, 27, 34]
    assert agent.imagined is not None
    assert agent.imagined.added == rounds * 10  # rollouts of one step each: step 100 is far


def test_offline_a_step_is_an_update_on_the_data_set(monkeypatch):
    fitted = []
    agent = make(
        "mopo", learn=lambda *_: fitted.append(0), real_ratio=0.5, updates_per_step=2,
        task=replace(TASK, reward=paid),
    )  # fmt: skip
    before = agent.replay.rows.clone()
    seen = batches_of(agent, monkeypatch)
    steps(agent, 8)
    assert len(seen) == 16
    assert not fitted
    assert torch.equal(agent.replay.rows, before)
    data = random_data(60)
    for batch, _ in seen:
        real = batch.reward != IMAGINED
        assert int(real.sum()) == 8
        assert all(any(torch.equal(row, o) for o in data.observation) for row in
                   batch.observation[real])  # fmt: skip
    assert agent.imagined is not None
    assert agent.imagined.added == 2 * 10


def test_offline_imitation_comes_first_and_then_the_real_rows_are_what_to_stay_near(monkeypatch):
    agent = make("mopo", learn=no_fit, real_ratio=0.5, imitate_steps=3)
    how, update = [], agent.sac.update

    def spy(batch, **flags):
        how.append((batch, flags, agent.imagined.added))
        return update(batch, **flags)

    monkeypatch.setattr(agent.sac, "update", spy)
    steps(agent, 5)
    assert [flags.get("imitate", False) for _, flags, _ in how] == [True] * 3 + [False] * 2
    assert [imagined > 0 for *_, imagined in how] == [False] * 3 + [True] * 2
    for batch, flags, _ in how[3:]:
        assert torch.equal(flags["behaviour"].observation, batch.observation[:8])


def test_metrics_are_averages_since_they_were_last_asked_for(monkeypatch):
    agent = make("sac", start_steps=30)
    seen = batches_of(agent, monkeypatch)
    steps(agent, 33)
    found = agent.metrics()
    told = [metrics for _, metrics in seen]
    for name in ("critic_loss", "q", "entropy", "temperature"):
        mean = np.mean([metrics[name].item() for metrics in told])
        assert found[f"policy/{name}"] == pytest.approx(mean, rel=1e-6)
    largest = max(metrics["largest_q"].item() for metrics in told)
    assert found["policy/largest_q"] == pytest.approx(largest)
    assert 1 <= found["real/length"] <= 20
    steps(agent, 1)
    assert agent.metrics()["policy/q"] == pytest.approx(seen[-1][1]["q"].item())
    assert "real/return" not in agent.metrics()


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1e6, "^the critic diverged by step 33: .* lower the"), (math.nan, "^100% of the updates")],
)
def test_a_critic_beyond_all_rewards_ends_the_training(factor, words):
    agent = make("sac", start_steps=30)
    steps(agent, 32)
    agent.metrics()
    with torch.no_grad():
        agent.sac.critic.linear_layers()[-1].weight.mul_(factor)
    steps(agent, 1)
    with pytest.raises(TrainingDiverged, match=words):
        agent.metrics()


def test_a_state_that_is_not_finite_replaces_nothing(tmp_path):
    agent = make("sac", start_steps=30)
    steps(agent, 32)
    agent.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        agent.sac.actor.network.linear_layers()[0].bias[0, 0, 0] = torch.nan
    with pytest.raises(TrainingDiverged, match="a state at step 32 is not finite"):
        agent.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("kind", "first", "more"), [("sac", 105, 6), ("mbpo", 104, 12), ("mopo", 5, 6)]
)
def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, kind, first, more):
    """Amid an episode, between two fits and two logs; two fits and longer rollouts follow."""
    whole = make(kind, real_ratio=1.0 if kind == "sac" else 0.25)
    steps(whole, first)
    whole.save(tmp_path)
    again = make(kind, seed=0, real_ratio=1.0 if kind == "sac" else 0.25)
    if kind != "mopo":
        steps(again, 3)  # it was somewhere else
    again.load(tmp_path)
    assert again.step == first
    steps(whole, more)
    steps(again, more)
    assert whole.metrics() == again.metrics()
    one, other = whole.state(), again.state()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    saved = load_policy_folder(tmp_path)
    assert saved.metadata["algorithm"] == kind
    assert not np.array_equal(saved.weights["w1"], again.policy()["w1"])


def test_without_a_checkpoint_it_starts_at_the_beginning(tmp_path):
    agent = make("sac")
    agent.load(tmp_path)
    assert agent.step == 0
