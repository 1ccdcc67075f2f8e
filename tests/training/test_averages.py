"""Averages of training metrics: of what is finite, the same however often they are interrupted."""

import torch

from mbrl_bilevel.training.averages import TOGETHER, Averages


def values(count):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0))


def test_they_are_means_over_steps_and_entries():
    x, averages = values(2 * TOGETHER + 10), Averages()
    for row in x:
        averages.add("loss", row)
        averages.add("norm", row[0])
    found = averages.take()
    torch.testing.assert_close(found["loss"], x.double().mean().item(), rtol=1e-12, atol=0)
    torch.testing.assert_close(found["norm"], x[:, 0].double().mean().item(), rtol=1e-12, atol=0)
    assert averages.take() == {}


def test_what_is_not_finite_is_left_out():
    x, averages = values(10), Averages()
    x[3, 1], x[4, 2] = torch.nan, -torch.inf
    for row in x:
        averages.add("loss", row)
        averages.add("nothing", torch.tensor(torch.nan))
    by_entry = [x[x[:, e].isfinite(), e].double().mean() for e in range(3)]
    found = averages.take()
    torch.testing.assert_close(found["loss"], torch.stack(by_entry).mean().item())
    assert "nothing" not in found


def test_a_figure_that_changes_in_place_is_noted_as_it_was():
    scale, averages = torch.zeros(1), Averages()
    for _ in range(3):
        averages.add("scale", scale)
        scale += 1
    assert averages.take() == {"scale": 1.0}


def test_state_carries_them_over_bit_for_bit():
    x, whole, first, second = values(TOGETHER + 50), Averages(), Averages(), Averages()
    for i, row in enumerate(x):
        whole.add("loss", row)
        (first if i < TOGETHER + 20 else second).add("loss", row)
        if i == TOGETHER + 19:
            second.load_state(first.state())
    assert whole.take() == second.take()
