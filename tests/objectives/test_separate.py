"""The separate objective: the mean is that of mse on its rows, the noise that of other rows."""

import math

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.separate_noise import SeparateNoiseEnsemble
from mbrl_bilevel.objectives.likelihood import MSE
from mbrl_bilevel.objectives.outer_data import OuterBatches, OuterData
from mbrl_bilevel.objectives.separate import SeparateRegression
from mbrl_bilevel.objectives.two_level import TwoLevel
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(**options):
    return SeparateNoiseEnsemble(2, 2, members=2, hidden=(16, 16), generator=seeded(), **options)


def rows(count, seed):
    """Noise of deviation 0.2 exp(x_1) about a linear mean."""
    x = torch.randn(count, 2, generator=seeded(seed))
    noise = torch.randn(count, 2, generator=seeded(seed + 10))
    return Samples(x, x @ torch.tensor([[1.0, 0.5], [-1.0, 2.0]]) + 0.2 * x[:, :1].exp() * noise)


def test_the_inner_loss_is_that_of_mse_and_moves_no_noise():
    net, (x, y) = network(), rows(6, 1)
    inner = SeparateRegression(net, generator=seeded(3))
    x, y = x.expand(2, -1, -1), y.expand(2, -1, -1)
    loss = inner(net, x, y)[0]
    torch.testing.assert_close(loss, MSE()(net, x, y, seeded())[0])
    loss.sum().backward()
    assert all(p.grad is None for p in (*net.side.parameters(), *inner.parameters()))


def test_the_outer_loss_is_the_likelihood_of_the_noise_and_moves_no_mean():
    net, (x, y) = network(), rows(6, 1)
    inner = SeparateRegression(net, generator=seeded(3))
    std = inner.side.log_std(x.unsqueeze(0)).exp()
    z = (y - net(x).mean) / std
    expected = (0.5 * z.square() + std.log() + 0.5 * math.log(2 * math.pi)).sum(-1).mean()
    loss, logged = inner.outer_loss(net, x.expand(2, -1, -1), y.expand(2, -1, -1))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logged, expected)
    loss.backward()
    assert all(p.grad is None for p in net.parameters())


def test_the_noise_is_that_of_left_out_rows_where_the_mean_has_memorised_its_own():
    """40 rows, which 16 units fit below their noise of 0.2 exp(x_1); the last state is kept."""
    net, few, others = network(), rows(40, 1), rows(2000, 5)
    inner = SeparateRegression(net, generator=seeded(3))
    everything = torch.arange(2000).expand(2, -1)
    outer = OuterData(OuterBatches(*others, everything, 256, seeded(4)))
    objective = TwoLevel(inner, outer, every=1, learning_rate=0.02, steps=300)
    settings = FitSettings(steps=300, batch_size=40, learning_rate=0.01, evaluate_every=300)
    fit_network(net, objective, few, others, generator=seeded(), settings=settings)
    new = rows(2000, 7)
    z = (new.y - net(new.x).mean) / net(new.x).std
    # 1 for the noise of rows that the mean has not seen; 2,000 heavy-tailed squares say .1
    torch.testing.assert_close(z.square().mean((0, 1)).sqrt(), torch.ones(2), rtol=0.2, atol=0)
    seen = ((few.y - net(few.x).mean) / net(few.x).std).square().mean().sqrt()
    assert seen < 0.8


def test_networks_without_a_noise_of_their_own_are_refused():
    with pytest.raises(InputError, match="needs a model of that kind"):
        SeparateRegression(GaussianEnsemble(2, 2))
