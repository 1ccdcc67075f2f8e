"""Weights of the mean: the loss, and hypergradients against fully solved inner problems."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.implicit import Implicit
from mbrl_bilevel.bilevel.linear_solve import CG, Status
from mbrl_bilevel.bilevel.parameters import ravel, unravel
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.distributions import DiagonalGaussian
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.faithful import Faithful
from mbrl_bilevel.objectives.mean_reward import MeanReward, weights
from mbrl_bilevel.objectives.outer_objectives import KStepError, visited_error
from mbrl_bilevel.objectives.outer_steps import ClosedForm
from mbrl_bilevel.objectives.visited import VisitedBatches
from tests.objectives.swirling_system import (
    all_windows,
    model_of,
    samples_of,
    seeded,
    swirling,
)

STEP = 1e-4  # of finite differences, whose error is of its square
PHI = torch.tensor([0.5, -0.5]).double()
DIRECTION = torch.tensor([1.0, -0.3]).double()


def squared_mean(mean, data):
    return mean(data).square().mean()


def batch(seed, members=2):
    return tuple(torch.randn(members, 8, 2, generator=seeded(seed)).double() for _ in range(2))


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_equal_weights_are_the_faithful_objective(covariance):
    net = GaussianEnsemble(
        2, 2, members=2, hidden=(8,), covariance=covariance, generator=seeded()
    ).double()
    found = []
    for objective in (MeanReward(2, squared_mean).double(), Faithful()):
        net.zero_grad()
        loss, _ = objective(net, *batch(1), seeded())
        loss.sum().backward()
        found.append([loss.detach(), *(p.grad.clone() for p in net.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_weights_scale_the_error_of_the_mean_alone_and_sum_to_the_number_of_targets():
    net = GaussianEnsemble(2, 2, members=2, hidden=(8,), generator=seeded()).double()
    inner = MeanReward(2, squared_mean).double()
    with torch.no_grad():
        inner.log_weight.copy_(torch.tensor([2.0, 0.0]))
    u = inner.precision_diagonal(net, torch.zeros(3, 2))
    assert u.shape == (3, 2)
    assert (u[0, 0] / u[0, 1]).item() == pytest.approx(torch.tensor(2.0).exp().item())
    assert u[0].sum().item() == pytest.approx(2.0)
    x, y = batch(1)
    gaussian = net(x)
    error = (u[0] * (gaussian.mean - y).square()).sum(-1).mean(-1)
    expected = error - gaussian.log_prob(y).mean(-1)
    torch.testing.assert_close(inner(net, x, y, seeded())[0], expected)
    problem = inner.bilevel_problem(net)
    phi = {k: p.detach() for k, p in inner.named_parameters()}
    theta = {k: p.detach() for k, p in net.named_parameters()}
    torch.testing.assert_close(problem.inner(theta, phi, (x, y)), error)


def test_the_metric_is_the_hessian_by_the_means():
    net = GaussianEnsemble(2, 2, members=1, hidden=(4,), generator=seeded()).double()
    problem = MeanReward(2, squared_mean).double().bilevel_problem(net)
    x, y = batch(1, members=1)
    phi = {"log_weight": PHI}
    theta = {k: p.detach() for k, p in net.named_parameters()}
    mean = problem.outputs(theta, (x, y))
    hessian = torch.autograd.functional.hessian(
        lambda m: problem.output_loss(m, phi, (x, y)).sum(), mean
    )
    expected = torch.stack([hessian[0, b, :, 0, b] for b in range(8)]).unsqueeze(0)
    torch.testing.assert_close(problem.output_metric(mean, phi, (x, y)), expected)


class SharedLinear(nn.Module):
    """Linear in its parameters, of which every target has a part in each: T10 in closed form."""

    def __init__(self, targets):
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(1, 7, generator=seeded(1)).double())
        self.register_buffer("mix", torch.randn(7, targets, generator=seeded(2)).double())

    def features(self, x):
        return torch.cat([x, x.sin(), torch.ones_like(x[..., :1])], -1)

    def forward(self, x):
        mean = (self.features(x) * self.weight.unsqueeze(1)) @ self.mix
        return DiagonalGaussian(mean, torch.zeros_like(mean))


def solved(problem, theta, phi, data):
    """theta*(phi), to a gradient below 1e-12, by damped Newton steps.

    The heads of the noise have no part in the problem; no other direction may be flat. Methods of
    first order end long before the curvature of 1e-3 that there is decides where they stand.
    """

    def loss(flat):
        return problem.inner(unravel(flat.unsqueeze(0), theta), phi, data).sum()

    flat = ravel(theta)
    for _ in range(200):
        gradient = torch.autograd.functional.jacobian(loss, flat)
        largest = gradient.abs().max()
        if largest < 1e-12:
            break
        values, vectors = torch.linalg.eigh(torch.autograd.functional.hessian(loss, flat))
        # Down every slope, by less where the gradient says that the minimum is far.
        steps = (vectors.mT @ gradient) / (values.abs() + largest)
        flat = flat - vectors @ steps
    assert largest < 1e-12
    return unravel(flat.unsqueeze(0), theta)


def curvatures(problem, theta, phi, data):
    def loss(flat):
        return problem.inner(unravel(flat.unsqueeze(0), theta), phi, data).sum()

    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, ravel(theta)))


def differences(problem, theta, phi, data, windows):
    """The derivative along DIRECTION of the outer loss of the inner problem, solved anew."""
    found = []
    for step in (STEP, -STEP):
        moved = {"log_weight": phi["log_weight"] + step * DIRECTION}
        found.append(problem.outer(solved(problem, theta, moved, data), moved, windows).item())
    return (found[0] - found[1]) / (2 * STEP)


def linear_problem():
    """The system's own rows, and windows of other episodes."""
    data = swirling()
    model = model_of(data, learn_reward=False)
    network = SharedLinear(2)
    problem = MeanReward(2, KStepError(model)).double().bilevel_problem(network)
    theta = {"weight": network.weight.detach()}
    return problem, theta, samples_of(model, data), all_windows(model, swirling(seed=9), 5)


def visited_problem():
    """The same rows, other ones outside, weighted by where a policy goes (theory T12)."""
    problem, theta, data, _ = linear_problem()
    model, others = model_of(swirling(), learn_reward=False), swirling(seed=9)
    rows = torch.arange(len(others)).unsqueeze(0)
    weighted = VisitedBatches(
        model, lambda obs: -0.5 * obs[..., :1], others, rows,
        horizon=5, batch_size=len(others), generator=seeded(),
    )  # fmt: skip
    problem = MeanReward(2, visited_error).double().bilevel_problem(SharedLinear(2))
    found = next(weighted)
    assert found.weight.amax() > 5 * found.weight.amin()
    return problem, theta, data, found


def network_problem():
    """A hidden layer, fitted to another of its kind, a term that it cannot hold, and noise.

    Near the parameters of the other one stands a minimum without flat directions. A network that is
    fitted to the system itself has none that double precision could tell from a slope.
    """
    data = swirling()
    model = model_of(data, hidden=(2,), learn_reward=False)
    g = seeded(0)
    truth = {
        k: 2 * p.detach() + 0.3 * torch.randn(p.shape, generator=g).double()
        for k, p in model.network.named_parameters()
    }

    def mean(x):
        return functional_call(model.network, truth, (x,)).mean

    def noise(like):
        return 0.2 * torch.randn(like.shape, generator=g).double()

    x, _ = samples_of(model, data)
    y = mean(x) + 0.05 * torch.sin(3 * x[..., :1])
    error = KStepError(model)
    windows = all_windows(model, swirling(seed=9), 5)
    observations, _ = error.paths(mean, windows)
    windows = windows._replace(observations=observations + noise(observations))
    problem = MeanReward(2, error).double().bilevel_problem(model.network)
    return problem, truth, (x, y + noise(y)), windows


@pytest.mark.parametrize("made", [linear_problem, visited_problem, network_problem])
def test_the_hypergradient_is_that_of_the_fully_solved_problem(made):
    """And the noise has no part in it: no damping is needed, and its heads stay at 0."""
    problem, theta, data, windows = made()
    phi = {"log_weight": PHI}
    theta = solved(problem, theta, phi, data)
    values = curvatures(problem, theta, phi, data)
    largest, inside = values.max(), values[values.abs() > 1e-12 * values.max()]
    assert inside.min() > 1e-5 * largest  # a minimum, and no direction of it is nearly flat
    expected = differences(problem, theta, phi, data, windows)
    assert abs(expected) > 1e-4
    found = Implicit(None, CG(), rtol=1e-11, max_iterations=500)(problem, theta, phi, data, windows)
    assert found.linear.status.tolist() == [int(Status.CONVERGED)]
    assert (found.grad["log_weight"] * DIRECTION).sum().item() == pytest.approx(expected, rel=1e-5)
    v = unravel(found.state, theta)
    for name, part in v.items():
        if made is network_problem and name.startswith("network.layers.1"):
            assert part[..., :2].abs().min() > 0
            assert (part[..., 2:] == 0).all()
    if made is not network_problem:  # here J^T diag(2 u / b) J is all of the Hessian
        fisher = Implicit(GaussNewton(problem.output_metric), CG(), rtol=1e-11, max_iterations=500)
        same = fisher(problem, theta, phi, data, windows).grad["log_weight"]
        torch.testing.assert_close(same, found.grad["log_weight"], rtol=1e-8, atol=1e-12)


def test_the_inner_optimum_of_a_linear_model_is_the_closed_form_of_the_theory():
    """theta* = (E Phi^T U Phi)^-1 E Phi^T U y (theory T10)."""
    problem, theta, (x, y), _ = linear_problem()
    network = SharedLinear(2)
    design = torch.einsum("bp,pn->bnp", network.features(x)[0], network.mix)
    U = torch.diag(weights(PHI))
    gram = torch.einsum("bnp,nm,bmq->pq", design, U, design)
    right = torch.einsum("bnp,nm,bm->p", design, U, y[0])
    expected = torch.linalg.solve(gram, right)
    found = solved(problem, theta, {"log_weight": PHI}, (x, y))["weight"][0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_a_mean_of_separate_targets_does_not_depend_on_the_weights():
    """Without hidden layers the targets share no parameter: the hypergradient is 0 (T10)."""
    data = swirling()
    model = model_of(data, hidden=(), learn_reward=False)
    problem = MeanReward(2, KStepError(model)).double().bilevel_problem(model.network)
    rows, phi = samples_of(model, data), {"log_weight": PHI}
    theta = {k: p.detach() for k, p in model.network.named_parameters()}
    theta = solved(problem, theta, phi, rows)
    windows = all_windows(model, swirling(seed=9), 5)
    assert problem.outer_gradients(theta, phi, windows).theta.norm() > 1e-2
    found = Implicit(None, CG(), rtol=1e-11)(problem, theta, phi, rows, windows)
    assert found.grad["log_weight"].norm() < 1e-9


def test_a_single_target_and_a_closed_form_are_refused():
    with pytest.raises(InputError, match="predicts one: choose --objective faithful"):
        MeanReward(1, squared_mean)
    net = GaussianEnsemble(2, 2, members=2, hidden=(4,), generator=seeded()).double()
    with pytest.raises(InputError, match="no closed form"):
        ClosedForm()(net, MeanReward(2, squared_mean), batch(1), batch(2), seeded())
