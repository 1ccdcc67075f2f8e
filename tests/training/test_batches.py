"""Batches: every row once an epoch, each member its own rows, an exact continuation; folds."""

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.training.batches import Batches, cross_fit, resample


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_an_epoch_of_shared_batches_shows_every_row_once_to_every_member():
    batches = Batches(resample(12, 3, "shared", seeded()), 4, seeded(), shared=True)
    for _ in range(2):
        epoch = torch.cat([next(batches) for _ in range(3)], 1)
        assert (epoch.sort(1).values == torch.arange(12)).all()
        assert (epoch == epoch[:1]).all()


def test_bootstrap_members_see_their_own_resample():
    rows = resample(1000, 3, "bootstrap", seeded())
    batches = Batches(rows, 100, seeded(), shared=False)
    epoch = torch.cat([next(batches) for _ in range(10)], 1)
    assert torch.equal(epoch.sort(1).values, rows.sort(1).values)
    assert not torch.equal(epoch[0], epoch[1])
    # a bootstrap of N rows holds 1 - 1/e of them; the deviation of that share is about 0.01
    shares = [member.unique().numel() / 1000 for member in rows]
    assert shares == pytest.approx([0.632] * 3, abs=0.04)


@pytest.mark.parametrize("taken", [0, 1, 3, 5, 6, 7])
def test_a_restored_state_continues_with_the_same_rows(taken):
    rows = resample(30, 2, "bootstrap", seeded())
    batches = Batches(rows, 10, seeded(), shared=False)
    for _ in range(taken):
        next(batches)
    state = batches.state()
    expected = [next(batches) for _ in range(8)]
    restored = Batches(rows, 10, seeded(99), shared=False)
    restored.load_state(state)
    assert all(torch.equal(a, next(restored)) for a in expected)


def test_a_batch_larger_than_the_data_is_the_whole_data():
    batches = Batches(resample(5, 1, "shared", seeded()), 256, seeded(), shared=True)
    assert next(batches).sort().values.tolist() == [[0, 1, 2, 3, 4]]


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(InputError, match="batch size of 0"):
        Batches(resample(5, 1, "shared", seeded()), 0, seeded(), shared=True)


def test_cross_fitting_leaves_every_row_out_from_exactly_one_member():
    episode = torch.repeat_interleave(torch.arange(11), torch.arange(3, 14))
    inside, outside = cross_fit(episode, 4, seeded(1))
    for e in range(4):
        kept, left = set(inside[e].tolist()), set(outside[e].tolist())
        assert kept | left == set(range(len(episode)))
        assert not set(episode[list(kept)].tolist()) & set(episode[list(left)].tolist())
    outer_rows = torch.cat([row.unique() for row in outside])
    assert outer_rows.sort().values.tolist() == list(range(len(episode)))


@pytest.mark.parametrize(("members", "episodes"), [(1, 5), (4, 3)])
def test_cross_fitting_needs_members_and_episodes(members, episodes):
    with pytest.raises(InputError, match="held-out outer data"):
        cross_fit(torch.arange(episodes), members, seeded(1))


@pytest.mark.situation("warned")
@pytest.mark.parametrize("lengths", [[1000, 4, 4, 4, 4], [300, 300], [50]])
def test_long_episodes_are_cut_where_whole_ones_would_starve_a_fold(lengths):
    episode = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    with pytest.warns(UserWarning, match="blocks of time"):
        inside, outside = cross_fit(episode, 5, seeded(1))
    outer_rows = torch.cat([row.unique() for row in outside])
    assert outer_rows.sort().values.tolist() == list(range(len(episode)))
    for e in range(5):
        assert not set(inside[e].tolist()) & set(outside[e].tolist())
        assert abs(len(outside[e].unique()) - len(episode) / 5) <= 4


def test_copies_stay_in_one_fold():
    episode = torch.repeat_interleave(torch.arange(20), 5)
    group = episode % 10
    inside, outside = cross_fit(episode, 4, seeded(1), group=group)
    for e in range(4):
        assert not set(group[inside[e]].tolist()) & set(group[outside[e]].tolist())
