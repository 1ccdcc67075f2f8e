"""Student-t as a loss: its formula, robustness, and a Gaussian that is calibrated on the way."""

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.objectives.student_t import StudentT
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.held_out import standardized_square
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    return GaussianEnsemble(2, 2, members=2, hidden=(16,), generator=seeded())


@pytest.mark.parametrize("nu", [1.0, 4.0, 30.0])
def test_the_loss_is_the_density_of_torch(nu):
    net = network().double()
    x, y = (torch.randn(2, 7, 2, generator=seeded(i)).double() for i in (1, 2))
    p = net(x)
    expected = -torch.distributions.StudentT(nu, p.mean, p.std).log_prob(y).sum(-1).mean(-1)
    torch.testing.assert_close(StudentT(nu)(net, x, y, seeded())[0], expected)


def test_calibration_leaves_the_loss_and_sets_the_deviations():
    """Where the bound on deviations is straight: the factor is taken out of the loss again."""
    net = GaussianEnsemble(2, 2, members=1, hidden=(16,), generator=seeded())
    objective, x = StudentT(), torch.randn(500, 2, generator=seeded(1))
    with torch.no_grad():
        net.network.layers[-1].bias[..., 2:] -= 3.0
        y = net(x).mean[0] + 0.1 * torch.randn(500, 2, generator=seeded(2))
    batch = x.expand(1, -1, -1), y.expand(1, -1, -1)
    before = objective(net, *batch, seeded())[0]
    objective.calibrate(net, x, y)
    torch.testing.assert_close(objective(net, *batch, seeded())[0], before, rtol=0, atol=0.02)
    for _ in range(3):
        objective.calibrate(net, x, y)
    torch.testing.assert_close(standardized_square(net, x, y), torch.ones(1, 2), rtol=0.02, atol=0)
    again = StudentT()
    again.load_state(objective.state())
    torch.testing.assert_close(again(net, *batch, seeded())[0], objective(net, *batch, seeded())[0])


def test_outliers_move_its_mean_less_than_that_of_nll():
    """One row in twenty is 20 off: 1 in the mean of y, where x has nothing to say of it."""
    g = seeded(1)
    x = torch.randn(2000, 2, generator=g)
    off = 20.0 * (torch.rand(2000, 1, generator=g) < 0.05)
    data = Samples(x, x + 0.1 * torch.randn(2000, 2, generator=g) + off)
    settings = FitSettings(steps=300, batch_size=128, learning_rate=0.01, evaluate_every=100)
    errors = []
    for objective in (StudentT(), NLL()):
        net = network()
        fit_network(net, objective, data, data, generator=seeded(), settings=settings)
        errors.append((net(x).mean - x).square().mean().sqrt().item())
    assert errors[0] < 0.3
    assert errors[1] > 0.6


def test_bad_degrees_and_a_full_covariance_are_refused():
    with pytest.raises(InputError, match="degrees of freedom: choose"):
        StudentT(0.0)
    net = GaussianEnsemble(2, 2, members=2, hidden=(4,), covariance="full", generator=seeded())
    batch = torch.zeros(2, 3, 2)
    with pytest.raises(InputError, match="--covariance diagonal only"):
        StudentT()(net, batch, batch, seeded())
