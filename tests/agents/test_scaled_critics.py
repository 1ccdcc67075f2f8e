"""Critics with bounded values: bounds against quantiles, values and losses against slow loops."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.scaled_critics import ScaledCritics

INPUTS, GAMMA = 4, 0.9


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def critics(seed=0, **options):
    """With biases, and targets that differ from the critics."""
    found = ScaledCritics(INPUTS, (16, 8), seeded(seed), **{"dropout": 0.0, **options}).double()
    with torch.no_grad():
        for parameter in [*found.critic.parameters(), *found.target.parameters()]:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=seeded(seed + 1)))
    return found


def inputs(count=20, seed=2):
    return torch.randn(count, INPUTS, generator=seeded(seed)).double()


def rewards(count=101, seed=3):
    return torch.randn(count, generator=seeded(seed)).double()


def with_bounds(found, low, high):
    found.low.fill_(low)
    found.high.fill_(high)
    return found


def test_the_first_bounds_are_quantiles_and_later_ones_their_moving_average():
    found, first, second = critics(), rewards(), 3 + 2 * rewards(seed=4)
    found.move_bounds(first, GAMMA)
    bounds = [np.quantile(part.numpy(), [0.01, 0.99]) / (1 - GAMMA) for part in (first, second)]
    np.testing.assert_allclose([found.low, found.high], bounds[0], rtol=1e-9)
    found.move_bounds(second, GAMMA)
    expected = 0.95 * bounds[0] + 0.05 * np.array([min(bounds[1][0], 0), bounds[1][1]])
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-6)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_bounds_hold_0_the_value_of_what_has_terminated(sign):
    found, soft = critics(), sign * (5 + rewards())
    found.move_bounds(soft, GAMMA)
    assert (found.low if sign > 0 else found.high) == 0
    far = np.quantile(soft.numpy(), 0.99 if sign > 0 else 0.01) / (1 - GAMMA)
    assert (found.high if sign > 0 else found.low).item() == pytest.approx(far)


def test_one_outlier_in_a_hundred_does_not_move_them():
    found, soft = critics(), rewards(400)
    soft[:3] = 1e6
    found.move_bounds(soft, GAMMA)
    assert found.high < 4 / (1 - GAMMA)


def test_values_stay_finite_where_all_rewards_are_0():
    found = critics()
    found.move_bounds(torch.zeros(50).double(), GAMMA)
    loss = found.loss(inputs(), torch.zeros(20).double())
    assert found.width > 0
    assert loss.isfinite()


def test_a_value_is_the_mean_of_all_critics_and_moves_none():
    found, x = with_bounds(critics(), -3.0, 11.0), inputs().requires_grad_()
    q = found.value(x)
    expected = sum(4 + 7 * found.critic(x)[i, :, 0] for i in range(5)) / 5
    torch.testing.assert_close(q, expected)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    q.sum().backward()
    torch.testing.assert_close(x.grad, gradient)
    assert all(p.grad is None and p.requires_grad for p in found.critic.parameters())


def test_a_target_is_the_smaller_of_two_different_critics_drawn_at_random():
    found, x = with_bounds(critics(), -3.0, 11.0), inputs()
    each = (4 + 7 * found.target(x)[:, :, 0]).detach()
    pairs = {
        pair: torch.minimum(each[pair[0]], each[pair[1]]) for pair in combinations(range(5), 2)
    }
    often = dict.fromkeys(pairs, 0)
    for _ in range(500):
        y = found.target_value(x)
        (drawn,) = (pair for pair, q in pairs.items() if torch.allclose(q, y, rtol=0, atol=1e-9))
        often[drawn] += 1
        assert not y.requires_grad
    # 500 draws of a tenth: 50 each, with a standard error of 6.7; four of them.
    assert max(abs(count - 50) for count in often.values()) < 27


def test_the_loss_is_the_squared_error_to_clipped_targets_in_units_of_the_width():
    found, x = with_bounds(critics(), -3.0, 11.0), inputs()
    y = 20 * rewards(20)
    assert (y < -3).any()
    assert (y > 11).any()
    assert ((y > -3) & (y < 11)).any()
    expected = 0.0
    for i in range(5):
        for row in range(20):
            clipped = min(max(y[row].item(), -3.0), 11.0)
            q = 4 + 7 * found.critic(x)[i, row, 0].item()
            expected += ((q - clipped) / 7) ** 2 / 20
    assert found.loss(x, y).item() == pytest.approx(expected, rel=1e-9)


def test_only_the_loss_drops_units():
    plain, dropping = critics(), critics(dropout=0.5)
    dropping.critic.load_state_dict(plain.critic.state_dict())
    dropping.target.load_state_dict(plain.target.state_dict())
    x, y = inputs(), rewards(20)
    assert torch.equal(dropping.value(x), plain.value(x))
    for found in (plain, dropping):
        found.generator.manual_seed(7)
    assert torch.equal(dropping.target_value(x), plain.target_value(x))
    assert dropping.loss(x, y) != plain.loss(x, y)
    assert dropping.loss(x, y) != dropping.loss(x, y)


def test_a_loss_moves_critics_and_no_target():
    found = critics()
    found.loss(inputs(), rewards(20)).backward()
    assert all((p.grad != 0).any() for p in found.critic.parameters())
    assert not any(p.requires_grad for p in found.target.parameters())


def test_targets_start_as_the_critics_and_follow_by_polyak_averaging():
    found = ScaledCritics(INPUTS, (16,), seeded(), target_rate=0.25).double()
    start = [p.clone() for p in found.target.parameters()]
    assert all(map(torch.equal, start, found.critic.parameters()))
    with torch.no_grad():
        for parameter in found.critic.parameters():
            parameter.add_(1.0)
    found.update_targets()
    found.update_targets()
    for now, before in zip(found.target.parameters(), start, strict=True):
        torch.testing.assert_close(now, before + (1 - 0.75**2))


def test_critics_start_apart():
    found = ScaledCritics(INPUTS, (16,), seeded()).double()
    q = found.critic(inputs())[:, :, 0]
    for one, other in combinations(q, 2):
        assert (one - other).abs().max() > 1e-2


def test_bounds_are_part_of_its_state():
    first, second = critics(), critics(seed=9)
    first.move_bounds(rewards(), GAMMA)
    second.load_state_dict(first.state_dict())
    for found in (first, second):
        found.move_bounds(rewards(seed=5), GAMMA)
    assert torch.equal(first.low, second.low)
    assert torch.equal(first.high, second.high)
    assert math.isfinite(first.low)
