"""Multi-step targets against a loop over single steps, and against a value that is known."""

import pytest
import torch

from mbrl_bilevel.agents.multi_step import multi_step
from mbrl_bilevel.data.replay import Batch

DISCOUNT = 0.9


def rollouts(length, branches, ends):
    generator = torch.Generator().manual_seed(0)
    count = length * branches
    obs, after = torch.randn(2, count, 3, generator=generator, dtype=torch.float64)
    reward = torch.randn(count, generator=generator, dtype=torch.float64)
    ended = (torch.rand(count, generator=generator) < ends).double()
    return Batch(obs, obs[:, :1], reward, after, ended)


def value(obs):
    return obs.sum(-1)


@pytest.mark.situation("right")
@pytest.mark.parametrize("ends", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("length", "branches"), [(1, 4), (2, 3), (7, 50)])
def test_the_targets_are_those_of_a_loop(length, branches, ends):
    batch = rollouts(length, branches, ends)
    found = multi_step(batch, branches, DISCOUNT)
    targets = found.reward + DISCOUNT * (1 - found.terminated) * value(found.next_observation)
    for t in range(length):
        for i in range(branches):
            expected, weight = 0.0, 1.0
            for k in range(t, length):
                row = k * branches + i
                expected += weight * batch.reward[row].item()
                weight *= DISCOUNT
                if batch.terminated[row]:
                    break
            else:
                expected += weight * value(batch.next_observation[row]).item()
            assert targets[t * branches + i].item() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(found.observation, batch.observation)
    assert torch.equal(found.action, batch.action)
    assert (found.terminated >= 0).all()
    assert (found.terminated <= 1).all()


def test_the_true_values_are_a_fixed_point_and_one_step_changes_nothing():
    """Reward 1 for ever is worth 1 / (1 - discount) from wherever it is looked at."""
    batch = rollouts(6, 4, 0.0)._replace(reward=torch.ones(24, dtype=torch.float64))
    found = multi_step(batch, 4, DISCOUNT)
    targets = found.reward + DISCOUNT * (1 - found.terminated) / (1 - DISCOUNT)
    torch.testing.assert_close(targets, torch.full_like(targets, 1 / (1 - DISCOUNT)))
    single = rollouts(1, 24, 0.5)
    for ours, theirs in zip(multi_step(single, 24, DISCOUNT), single, strict=True):
        assert torch.equal(ours, theirs)
