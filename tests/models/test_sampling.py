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


@pytest.mark.parametrize(("count", "shape"), [(7, (4, 5)), (7, (6,)), (0, (3, 0))])
def test_taken_rows_are_those_of_an_index(count: int, shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, generator=g)
    rows = torch.randint(max(count, 1), shape, generator=g)
    assert torch.equal(take_rows(x, rows), x[rows])
