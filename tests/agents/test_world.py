"""The learned world: what is imagined in it follows the model, the task and the replay."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.agents.world import BLOCK, LengthSchedule, World, in_blocks
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.uncertainty import uncertainty

CHANGE = torch.tensor([[0.5, 0.0], [0.25, -0.5], [0.0, 1.0]])  # of (observation, action)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def reward(obs, act, next_obs):
    return obs[..., 0] + 2 * act[..., 0] - 3 * next_obs[..., 1]


TASK = Task("Line-v0", reward, lambda after: after[..., 0] > 1.0, ("x", "y"))


def linear_model(std=0.0):
    """Whose change of observation is linear, by a network without hidden layers, and known."""
    bounds = (-30.0, 20.0)  # far off: they are soft
    model = DynamicsModel(2, 1, members=2, hidden=(), env_id="Line-v0", log_std_bounds=bounds)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        layer = model.network.network.linear_layers()[-1]
        layer.weight[:, :, :2] = CHANGE
        layer.bias[:, :, 2:] = np.log(std) if std else -100.0
    return model


def world(model=None, refit=None, **settings):
    return World(
        model or linear_model(),
        TASK,
        refit or (lambda *_: {}),
        seeded(),
        observation_space=Box(-np.inf, np.inf, (2,)),
        action_space=Box(-1.0, 1.0, (1,)),
        **{"rollouts": 6, "length": LengthSchedule(4, 4), **settings},
    )


def act(obs):
    return (0.3 * obs[:, :1]).clamp(-1, 1)


STARTS = torch.randn(5, 2, generator=seeded(7)).clamp(max=0.9)


@pytest.mark.parametrize(
    ("step", "length"), [(0, 1), (999, 1), (1000, 1), (1500, 8), (1066, 1), (1067, 2), (2000, 16)]
)
def test_lengths_grow_in_a_straight_line_of_whole_numbers(step, length):
    assert LengthSchedule(1, 16, 1000, 2000)(step) == length
    assert LengthSchedule(1, 16, 1000, 2000)(2000 + step) == 16


@pytest.mark.parametrize("bad", [(0, 1, 0, 1), (3, 2, 0, 1), (1, 2, -1, 1), (1, 2, 5, 5)])
def test_lengths_that_cannot_be(bad):
    with pytest.raises(InputError, match=f"from {bad[0]} at step {bad[2]} to {bad[1]} at step"):
        LengthSchedule(*bad)


@pytest.mark.situation("warned")
def test_bounds_that_real_observations_leave_are_given_up_with_one_warning():
    space = Box(np.array([-9, -0.1], np.float32), np.array([9, 0.1], np.float32))
    tight, wide, again = (world() for _ in range(3))
    tight.observation_space = again.observation_space = space
    with pytest.warns(UserWarning, match="Line-v0 .y from") as warned:
        found = [tight.imagine(STARTS, act, step)[0] for step in (0, 1)]
    assert len(warned) == 1
    expected = [wide.imagine(STARTS, act, step)[0] for step in (0, 1)]
    for batch, other in zip(found, expected, strict=True):
        assert all(map(torch.equal, batch, other))
    again.load_state(tight.state())  # as on --resume: known, and not said again
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.imagine(STARTS[:1] * 0, act, 0)
    assert again.outside.tolist() == [False, True]


def test_what_is_imagined_follows_the_model_and_the_task():
    batch, figures = world().imagine(STARTS, act, step=0)
    assert len(batch.reward) == 4 * 6
    torch.testing.assert_close(batch.action, act(batch.observation))
    change = torch.cat([batch.observation, batch.action], 1) @ CHANGE
    torch.testing.assert_close(batch.next_observation, batch.observation + change)
    torch.testing.assert_close(
        batch.reward, reward(batch.observation, batch.action, batch.next_observation)
    )
    assert torch.equal(batch.terminated, (batch.next_observation[:, 0] > 1.0).float())
    assert 0 < batch.terminated.sum() < len(batch.reward)
    assert figures["rollout_length"] == 4
    torch.testing.assert_close(figures["imagined_reward"], batch.reward.mean())
    torch.testing.assert_close(figures["imagined_terminations"], batch.terminated.mean())
    assert figures["penalty"] == 0


def test_rollouts_begin_at_real_states_and_anew_after_a_termination():
    batch, _ = world().imagine(STARTS, act, step=0)
    obs, after = (c.reshape(4, 6, 2) for c in (batch.observation, batch.next_observation))
    ends = batch.terminated.reshape(4, 6).bool()

    def is_start(rows):
        return (rows.unsqueeze(-2) == STARTS).all(-1).any(-1)

    assert is_start(obs[0]).all()
    assert torch.equal(obs[1:][~ends[:-1]], after[:-1][~ends[:-1]])
    assert ends[:-1].any()
    assert is_start(obs[1:][ends[:-1]]).all()


def test_rollouts_are_those_of_the_generator_and_as_long_as_the_step_says():
    length = LengthSchedule(1, 3, 10, 20)
    for step, expected in ((10, 1), (15, 2), (20, 3)):
        one, two = (world(length=length).imagine(STARTS, act, step)[0] for _ in range(2))
        assert len(one.reward) == 6 * expected
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    twice = world(length=length)
    first, second = (twice.imagine(STARTS, act, 20)[0] for _ in range(2))
    assert not torch.equal(first.observation, second.observation)


def test_the_penalty_is_taken_off_the_reward():
    model = linear_model(std=0.2)
    batch, figures = world(model, penalty="aleatoric", penalty_weight=1.5).imagine(STARTS, act, 0)
    expected = 1.5 * uncertainty(model, batch.observation, batch.action, "aleatoric")
    torch.testing.assert_close(expected, torch.full_like(expected, 1.5 * 0.2 * 2**0.5))
    known = reward(batch.observation, batch.action, batch.next_observation)
    torch.testing.assert_close(batch.reward, known - expected)
    torch.testing.assert_close(figures["penalty"], expected.mean())


def test_no_penalty_and_a_penalty_without_weight_are_the_same():
    batches = [
        world(linear_model(std=0.2), **settings).imagine(STARTS, act, 0)[0]
        for settings in (
            {},
            {"penalty": "none", "penalty_weight": 5.0},
            {"penalty": "disagreement", "penalty_weight": 0.0},
        )
    ]
    for batch in batches[1:]:
        assert all(torch.equal(a, b) for a, b in zip(batches[0], batch, strict=True))


def real_data(count, seed=0):
    obs = torch.randn(count, 2, generator=seeded(seed))
    action = torch.rand(count, 1, generator=seeded(seed + 1))
    after = obs + torch.cat([obs, action], 1) @ CHANGE
    zeros = torch.zeros(count)
    return Batch(obs, action, zeros, after, zeros)


def test_new_data_are_judged_before_the_model_learns_from_them():
    """The refit makes the model worse on purpose: the figures are of the model before it."""
    seen = []

    def refit(model, data):
        seen.append(len(data))
        with torch.no_grad():  # its predictions are now off by 0.1 and 0.3
            layer = model.network.network.linear_layers()[-1]
            layer.bias[:, :, :2] = torch.tensor([0.1, 0.3])
        return {"held_out_nll": 1.25}

    learned = world(linear_model(std=1.0), refit=refit)
    assert learned.learn(real_data(60), added=60) == {"model/held_out_nll": 1.25}
    with torch.no_grad():
        learned.model.network.network.linear_layers()[-1].bias[:, :, :2] = 0
    figures = learned.learn(real_data(80), added=80)
    assert figures["model/fresh_rmse"] == pytest.approx(0, abs=1e-6)
    again = learned.learn(real_data(100), added=100)
    assert again["model/fresh_rmse"] == pytest.approx(((0.1**2 + 0.3**2) / 2) ** 0.5, rel=1e-4)
    nll = 0.5 * np.log(2 * np.pi) + (0.1**2 + 0.3**2) / 4
    assert again["model/fresh_nll"] == pytest.approx(nll, rel=1e-4)
    assert seen == [60, 80, 100]
    assert learned.learned_from == 100


def test_only_what_is_new_is_judged():
    learned = world(linear_model(std=1.0))
    learned.learn(real_data(60), added=60)
    data = real_data(80)
    wrong = data.next_observation.clone()
    wrong[:60] += 100  # of the old ones
    data = data._replace(next_observation=wrong)
    assert learned.learn(data, added=80)["model/fresh_rmse"] == pytest.approx(0, abs=1e-6)


def test_blocks_of_time_stand_for_episodes():
    data = real_data(2 * BLOCK + 7)._replace(terminated=torch.ones(2 * BLOCK + 7))
    found = in_blocks(data)
    assert found.episode.tolist() == [0] * BLOCK + [1] * BLOCK + [2] * 7
    assert found.terminated.all()
    assert not found.truncated.any()
    for name in ("observation", "action", "reward", "next_observation"):
        assert torch.equal(getattr(found, name), getattr(data, name))


def test_its_state_leads_to_the_same_model():
    first = world(DynamicsModel(2, 1, members=3, hidden=(4,), generator=seeded()))
    first.model.elites = torch.tensor([2, 0])
    first.learned_from = 12
    second = world(DynamicsModel(2, 1, members=3, hidden=(4,), generator=seeded(1)))
    second.load_state({k: v.clone() for k, v in first.state().items()})
    assert second.learned_from == 12
    a, b = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_its_state_says_which_targets_the_model_predicts():
    """A fit may have found that a target stood still; the model it goes on as must know."""
    first, second = world(), world()
    first.model.restrict(torch.tensor([1]))
    second.load_state({k: v.clone() for k, v in first.state().items()})
    assert second.model.network.outputs == 1
    batches = [one.imagine(STARTS, act, 0)[0] for one in (first, second)]
    assert torch.equal(batches[0].next_observation, batches[1].next_observation)
    assert torch.equal(batches[1].next_observation[:, 0], batches[1].observation[:, 0])


def test_a_model_of_another_task_imagines_nothing():
    other = world()
    other.task = replace(TASK, env_id="Circle-v0")
    with pytest.raises(InputError, match="trained for Line-v0, not for Circle-v0"):
        other.imagine(STARTS, act, 0)
