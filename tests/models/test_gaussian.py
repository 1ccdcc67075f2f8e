"""Gaussians against torch.distributions; the ensemble against separate networks."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.distributions import DiagonalGaussian, FullGaussian
from mbrl_bilevel.models.gaussian import NOISE_GAIN, GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import NLL


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n", [1, 2, 17])
@pytest.mark.parametrize("batch", [1, 5])
def test_diagonal_agrees_with_torch_distributions(n, batch):
    g = torch.Generator().manual_seed(n)
    mean, log_std, y = (torch.randn(3, batch, n, generator=g).double() for _ in range(3))
    ours = DiagonalGaussian(mean, log_std)
    theirs = Independent(Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(ours.log_prob(y), theirs.log_prob(y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.entropy(), theirs.entropy(), rtol=1e-12, atol=1e-12)
    assert ours.log_prob(y).shape == (3, batch)


@pytest.mark.parametrize("n", [1, 2, 17])
def test_full_agrees_with_torch_distributions(n):
    g = torch.Generator().manual_seed(n)
    mean, y = (torch.randn(3, 4, n, generator=g).double() for _ in range(2))
    factor = torch.randn(3, 4, n, n, generator=g).double().tril(-1)
    scale_tril = factor + torch.diag_embed(torch.rand(3, 4, n, generator=g).double() + 0.5)
    ours, theirs = FullGaussian(mean, scale_tril), MultivariateNormal(mean, scale_tril=scale_tril)
    torch.testing.assert_close(ours.log_prob(y), theirs.log_prob(y), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.entropy(), theirs.entropy(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.std, theirs.variance.sqrt(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_samples_have_the_mean_and_covariance_of_the_distribution(covariance):
    g = torch.Generator().manual_seed(0)
    net = GaussianEnsemble(3, 2, members=2, hidden=(8,), covariance=covariance, generator=g)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
        gaussian = net(torch.randn(1, 3, generator=g))
        samples = gaussian.rsample(torch.randn(200_000, 2, 1, 2, generator=g))[:, 0, 0]
    scale = gaussian.scale_tril[0, 0]
    expected = scale @ scale.T
    # 200,000 samples: standard errors of about sigma / 447 and sigma^2 / 316; four of them.
    bound = 4 * expected.diagonal().max().item()
    torch.testing.assert_close(samples.mean(0), gaussian.mean[0, 0], rtol=0, atol=bound / 400)
    torch.testing.assert_close(samples.T.cov(), expected, rtol=0, atol=bound / 300)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_the_bound_on_the_noise_acts_in_the_network(shift):
    net = GaussianEnsemble(3, 2, members=2, hidden=(8,), log_std_bounds=(-3.0, 0.5))
    with torch.no_grad():
        net.network.layers[-1].bias += shift
        std = net(torch.randn(10, 3)).std
    assert (std >= math.exp(-3.0) * 0.9999).all()
    assert (std <= math.exp(0.5) * 1.0001).all()


def test_the_batched_ensemble_equals_separate_networks():
    g = torch.Generator().manual_seed(0)
    net = GaussianEnsemble(4, 3, members=3, hidden=(16, 8), generator=g).double()
    x = torch.randn(7, 4, generator=g).double()
    for e, mean in enumerate(net(x).mean):
        layers = []
        for layer in net.network.layers:
            linear = nn.Linear(*layer.weight.shape[1:]).double()
            linear.weight.data, linear.bias.data = layer.weight[e].T, layer.bias[e, 0]
            layers += [linear, nn.SiLU()]
        torch.testing.assert_close(nn.Sequential(*layers[:-1])(x)[:, :3], mean)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_members_may_each_have_an_input_of_their_own(covariance):
    net = GaussianEnsemble(4, 3, members=3, hidden=(16,), covariance=covariance)
    x = torch.randn(3, 7, 4)
    y = torch.randn(3, 7, 3)
    own = net(x).log_prob(y)
    for e in range(3):
        torch.testing.assert_close(own[e], net(x[e]).log_prob(y[e])[e])


def test_selected_members_are_copies_in_the_order_asked_for():
    net = GaussianEnsemble(4, 3, members=4, hidden=(16,))
    x = torch.randn(7, 4)
    chosen = net.select(torch.tensor([2, 0]))
    torch.testing.assert_close(chosen(x).mean, net(x).mean[[2, 0]])
    with torch.no_grad():
        chosen.network.layers[0].weight.zero_()
    assert (net.network.layers[0].weight != 0).any()
    assert net.members == 4


@pytest.mark.parametrize("noise", ["input", "constant"])
def test_a_plugged_in_deviation_is_predicted_everywhere(noise):
    net = GaussianEnsemble(4, 2, members=3, hidden=(16,), noise=noise)
    mean = net(torch.ones(1, 4)).mean
    std = torch.tensor([[0.01, 1.0], [0.2, 3.0], [1.0, 0.5]])
    net.set_std(std)
    gaussian = net(10 * torch.randn(5, 4))
    torch.testing.assert_close(gaussian.std, std.unsqueeze(1).expand(-1, 5, -1), rtol=1e-4, atol=0)
    torch.testing.assert_close(net(torch.ones(1, 4)).mean, mean)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"members": 0}, "0 members"),
        ({"log_std_bounds": (1.0, -1.0)}, "below the upper"),
        ({"noise": "constant", "covariance": "full"}, "for a full one choose noise 'input'"),
        ({"dropout": 1.0}, "a dropout of 1.0: choose a share"),
    ],
)
def test_impossible_ensembles_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        GaussianEnsemble(3, 2, **arguments)


def constant_noise(targets=3, **options):
    return GaussianEnsemble(
        4, targets, members=3, hidden=(16,), noise="constant", generator=seeded(), **options
    ).double()


def spread(net, seed=1):
    """Gives every member and target a deviation of its own; returns them, [e, n]."""
    std = torch.rand(net.members, net.outputs, generator=seeded(seed)).double() + 0.1
    net.set_std(std)
    return std


def test_constant_noise_learns_the_deviation_of_its_residuals():
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


def test_a_step_of_adam_moves_the_log_of_constant_noise_by_the_gain_times_the_rate():
    net = GaussianEnsemble(
        4, 1, members=1, hidden=(), noise="constant", log_std_bounds=(-30.0, 30.0)
    )
    before = net(torch.zeros(1, 4)).log_std.item()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    NLL()(net, torch.zeros(1, 1, 4), torch.full((1, 1, 1), 50.0), seeded())[0].sum().backward()
    optimizer.step()
    after = net(torch.zeros(1, 4)).log_std.item()
    assert after - before == pytest.approx(1e-3 * NOISE_GAIN, rel=1e-3)


def test_constant_noise_is_the_same_for_every_input_and_another_for_every_member():
    net = constant_noise()
    std = spread(net)
    own, shared = torch.randn(3, 5, 4, generator=seeded()).double(), torch.randn(9, 4).double()
    for x in (own, 100 * shared):
        found = net(x)
        assert found.std.shape == found.mean.shape
        expected = std.unsqueeze(1).expand_as(found.std)
        torch.testing.assert_close(found.std, expected, rtol=1e-9, atol=0)


def test_selected_members_have_copies_of_constant_noise_in_the_order_asked_for():
    net = constant_noise(layer_norm=True, dropout=0.1)
    std, x = spread(net), torch.randn(7, 4, generator=seeded()).double()
    expected = net(x)
    chosen = net.select(torch.tensor([2, 0]))
    assert chosen.members == 2
    assert torch.equal(chosen(x).mean, expected.mean[[2, 0]])
    assert torch.equal(chosen(x).std, expected.std[[2, 0]])
    chosen.set_std(torch.full_like(std[:2], 0.7))
    assert torch.equal(net(x).std, expected.std)
    assert len(list(chosen.parameters())) == len(list(net.parameters()))


def test_constant_deviations_are_widened_by_a_factor_each():
    net = constant_noise(log_std_bounds=(-30.0, 30.0))  # far off: they are soft
    std = spread(net)
    factor = torch.tensor([[1.0, 2.0, 3.0], [1.5, 1.0, 1.0], [1.0, 1.0, 4.0]]).double()
    net.widen_std(factor)
    found = net(torch.zeros(1, 4).double()).std[:, 0]
    torch.testing.assert_close(found, std * factor, rtol=1e-6, atol=0)


def test_held_constant_deviations_begin_at_1_and_no_loss_moves_them():
    net = constant_noise()
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


def test_constant_noise_restricted_to_some_targets_is_theirs():
    net = constant_noise()
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
