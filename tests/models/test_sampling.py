"""Rows that are dealt to members."""

import pytest
import torch

from mbrl_bilevel.models.sampling import deal, take_rows


@pytest.mark.parametrize(("count", "members"), [(12, 4), (10, 4), (3, 5), (1, 1), (0, 3)])
def test_every_row_finds_what_its_own_member_made_of_it(count: int, members: int) -> None:
    rows, place = deal(count, members, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert rows.shape == (members, -(-count // members))
    assert place.shape == (count,)
    dealt = rows.flatten()[place]
    assert torch.equal(dealt, torch.arange(count))
    assert len(place.unique()) == count


def test_taken_rows_are_those_of_an_index() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, generator=g)
    rows = torch.randint(7, (4, 5), generator=g)
    assert torch.equal(take_rows(x, rows), x[rows])
