"""An ensemble whose noise is one learned deviation per member and target."""

import pytest
import torch

from mbrl_bilevel.models.gaussian import NOISE_GAIN, GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import NLL


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ensemble(targets=3, **options):
    return GaussianEnsemble(
        4, targets, members=3, hidden=(16,), noise="constant", generator=seeded(), **options
    ).double()


def spread(net, seed=1):
    """Gives every member and target a deviation of its own; returns them, [e, n]."""
    std = torch.rand(net.members, net.outputs, generator=seeded(seed)).double() + 0.1
    net.set_std(std)
    return std


def test_it_learns_the_deviation_of_its_residuals():
    """At the likelihood's optimum the variance is the mean square of the member's own residuals."""
    g = seeded(3)
    x = torch.randn(3, 500, 4, generator=g).double()  # every member has rows of its own
    noise = torch.randn(3, 500, 3, generator=g).double()
    wanted = torch.tensor([[0.05, 0.5, 2.0], [0.1, 1.0, 0.2], [0.3, 0.3, 0.3]]).double()
    y = x[..., :3] - 0.5 + wanted.unsqueeze(1) * noise
    net = GaussianEnsemble(4, 3, members=3, hidden=(), noise="constant", generator=g).double()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 1e-2 if step < 400 else 1e-3
        optimizer.zero_grad()
        NLL()(net, x, y, g)[0].sum().backward()
        optimizer.step()
    with torch.no_grad():
        gaussian = net(x)
    residual = (gaussian.mean - y).square().mean(1).sqrt()
    # What Adam leaves of the way: 1 % of a deviation costs the likelihood 1e-4.
    torch.testing.assert_close(gaussian.std[:, 0], residual, rtol=0.01, atol=0)
    # 500 rows: a relative standard error of 1 / sqrt(1,000); four of them.
    torch.testing.assert_close(gaussian.std[:, 0], wanted, rtol=4 / 1000**0.5, atol=0)


def test_a_step_of_adam_moves_its_log_by_the_gain_times_the_rate():
    net = GaussianEnsemble(
        4, 1, members=1, hidden=(), noise="constant", log_std_bounds=(-30.0, 30.0)
    )
    before = net(torch.zeros(1, 4)).log_std.item()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    NLL()(net, torch.zeros(1, 1, 4), torch.full((1, 1, 1), 50.0), seeded())[0].sum().backward()
    optimizer.step()
    after = net(torch.zeros(1, 4)).log_std.item()
    assert after - before == pytest.approx(1e-3 * NOISE_GAIN, rel=1e-3)


def test_it_is_the_same_for_every_input_and_another_for_every_member():
    net = ensemble()
    std = spread(net)
    own, shared = torch.randn(3, 5, 4, generator=seeded()).double(), torch.randn(9, 4).double()
    for x in (own, 100 * shared):
        found = net(x)
        assert found.std.shape == found.mean.shape
        expected = std.unsqueeze(1).expand_as(found.std)
        torch.testing.assert_close(found.std, expected, rtol=1e-9, atol=0)


def test_selected_members_have_copies_of_it_in_the_order_asked_for():
    net = ensemble(layer_norm=True, dropout=0.1)
    std, x = spread(net), torch.randn(7, 4, generator=seeded()).double()
    expected = net(x)
    chosen = net.select(torch.tensor([2, 0]))
    assert chosen.members == 2
    assert torch.equal(chosen(x).mean, expected.mean[[2, 0]])
    assert torch.equal(chosen(x).std, expected.std[[2, 0]])
    chosen.set_std(torch.full_like(std[:2], 0.7))
    assert torch.equal(net(x).std, expected.std)
    assert len(list(chosen.parameters())) == len(list(net.parameters()))


def test_deviations_are_widened_by_a_factor_each():
    net = ensemble(log_std_bounds=(-30.0, 30.0))  # far off: they are soft
    std = spread(net)
    factor = torch.tensor([[1.0, 2.0, 3.0], [1.5, 1.0, 1.0], [1.0, 1.0, 4.0]]).double()
    net.widen_std(factor)
    found = net(torch.zeros(1, 4).double()).std[:, 0]
    torch.testing.assert_close(found, std * factor, rtol=1e-6, atol=0)


def test_held_deviations_begin_at_1_and_no_loss_moves_them():
    net = ensemble()
    std = spread(net)
    net.hold_std(torch.tensor([1]))
    x = torch.randn(3, 6, 4, generator=seeded()).double()
    gaussian = net(x)
    expected = std.clone()
    expected[:, 1] = 1.0
    torch.testing.assert_close(gaussian.std[:, 0], expected, rtol=1e-9, atol=0)
    gaussian.log_prob(torch.zeros(3, 6, 3).double()).sum().backward()
    assert net.log_std.grad is not None
    assert not net.log_std.grad[:, 0, 1].any()
    assert (net.log_std.grad[:, 0, [0, 2]] != 0).all()
    net.set_std(torch.full_like(std, 0.25), held_only=True)
    expected[:, 1] = 0.25
    torch.testing.assert_close(net(x).std[:, 0], expected, rtol=1e-9, atol=0)
    net.hold_std(torch.tensor([1, 2]))  # 1 has been held before, and keeps what it has
    expected[:, 2] = 1.0
    torch.testing.assert_close(net(x).std[:, 0], expected, rtol=1e-9, atol=0)


def test_restricted_to_some_targets_it_has_theirs():
    net = ensemble()
    std, x = spread(net), torch.randn(5, 4, generator=seeded()).double()
    expected = net(x)
    net.restrict(torch.tensor([0, 2]))
    found = net(x)
    assert torch.equal(found.mean, expected.mean[..., [0, 2]])
    assert torch.equal(found.std, expected.std[..., [0, 2]])
    net.set_std(torch.full((3, 2), 0.5).double())
    net.restrict(torch.tensor([1, 2]))
    expected_std = torch.stack([std[:, 1], torch.full_like(std[:, 1], 0.5)], -1)
    torch.testing.assert_close(net(x).std[:, 0], expected_std, rtol=1e-9, atol=0)
