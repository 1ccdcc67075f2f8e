"""Batches: every row once an epoch, each member its own rows, and an exact continuation."""

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.training.batches import Batches, resample


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
