"""The ring holds the newest transitions, and gives each the same chance."""

from collections import deque

import pytest
import torch
from scipy.stats import chi2

from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError

OBS, ACT = 3, 2


def transitions(count, first=0):
    """Whose every number says which transition it is of: all in one row are told apart."""
    number = torch.arange(first, first + count, dtype=torch.float32)
    wide = number.unsqueeze(-1)
    return Batch(
        wide + torch.tensor([0.1, 0.2, 0.3]),
        wide + torch.tensor([0.4, 0.5]),
        number + 0.6,
        wide + torch.tensor([0.7, 0.8, 0.9]),
        number % 2,
    )


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("sizes", [(3,), (7,), (4, 3), (5, 5, 5), (20,), (3, 20, 2), (1,) * 16])
def test_the_newest_are_held_in_order_as_in_a_deque(sizes):
    """Batches that fill it, that wrap around and that are larger than the ring."""
    capacity = 7
    replay, expected, added = Replay(capacity, OBS, ACT), deque(maxlen=capacity), 0
    for size in sizes:
        replay.add(transitions(size, added))
        expected.extend(range(added, added + size))
        added += size
        oldest, count = expected[0], len(expected)
        assert (len(replay), replay.added) == (count, added)
        assert same(replay.in_order(), transitions(count, oldest))


@pytest.mark.parametrize("added", [3, 20, 45])
def test_of_the_newest_only_those_are_drawn(added):
    """Half full, full and wrapped around; more than are held is all of them."""
    replay, generator = Replay(20, OBS, ACT), torch.Generator().manual_seed(0)
    replay.add(transitions(added))
    for newest in (1, 5, 100):
        drawn = replay.sample(2_000, generator, newest=newest)
        number = (drawn.reward - 0.6).round().long().unique().tolist()
        assert number == list(range(added - min(newest, len(replay)), added))


def test_sampling_is_uniform_over_what_is_held():
    """Chi-square of the counts against equal shares, once half full and once wrapped around.

    Below the 1 - 1e-6 quantile of its distribution: one false alarm in a million seeds.
    """
    replay, generator = Replay(40, OBS, ACT), torch.Generator().manual_seed(0)
    for added, held in ((20, 20), (45, 40)):
        replay.add(transitions(added, replay.added))
        draws = 200 * held
        batch = replay.sample(draws, generator)
        number = (batch.reward - 0.6).round().long()
        rows = transitions(replay.added)
        assert same(batch, Batch(*(column[number] for column in rows)))
        counts = number.bincount(minlength=replay.added)
        assert int(counts[: replay.added - held].sum()) == 0
        expected = draws / held
        statistic = ((counts[-held:] - expected) ** 2 / expected).sum().item()
        assert statistic < chi2.ppf(1 - 1e-6, held - 1)


def test_sampling_depends_on_the_generator_alone():
    replay = Replay(10, OBS, ACT)
    replay.add(transitions(6))
    a, b, c = (replay.sample(32, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert same(a, b)
    assert not same(a, c)


@pytest.mark.parametrize("added", [0, 4, 7, 12])
def test_its_state_leads_to_the_same_ring(added):
    """The same rows in the same places: samples and what is pushed out next agree."""
    first, second = Replay(7, OBS, ACT), Replay(7, OBS, ACT)
    first.add(transitions(added))
    second.add(transitions(3, 100))  # to be forgotten
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for replay in (first, second):
        replay.add(transitions(2, added))
    assert same(first.in_order(), second.in_order())
    drawn = [r.sample(16, torch.Generator().manual_seed(0)) for r in (first, second)]
    assert same(*drawn)
    assert first.added == second.added == added + 2


def test_a_ring_without_room():
    with pytest.raises(InputError, match="a replay of 0 transitions: choose at least 1"):
        Replay(0, OBS, ACT)


def test_a_replay_of_a_data_set_holds_its_transitions_and_their_ends():
    rows = transitions(6)
    ended = rows.terminated.bool()
    nowhere, episode = torch.zeros(6, dtype=torch.bool), torch.arange(6)
    data = Transitions(*rows[:4], ended, nowhere, episode)
    found = Replay.of(data)
    assert (len(found), found.added) == (6, 6)
    assert same(found.in_order(), rows)
