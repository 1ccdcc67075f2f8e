"""A network and a neural reward: products, and the derivative of the fully solved problem."""

import math
import time
import warnings
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.hypergradient import ConvergenceWarning
from mbrl_bilevel.bilevel.implicit import ExactDense, Implicit
from mbrl_bilevel.bilevel.linear_solve import Status, dense
from mbrl_bilevel.bilevel.parameters import Params, ravel, unravel
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient
from mbrl_bilevel.bilevel.value_gap import ValueGap
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from tests.bilevel.gaussian_problem import relative_error
from tests.bilevel.neural_problem import (
    DECAY,
    DTYPE,
    PROBLEM,
    SolvedProblem,
    arguments,
    inner,
    neural_problem,
    newton,
    outer,
    predict,
    solved_value,
)

Record = Callable[[str, object], None]
toy = cache(neural_problem)


def at_random(seed: int = 1) -> SolvedProblem:
    """Away from any optimum, where the Hessian is indefinite."""
    generator = torch.Generator().manual_seed(seed)
    theta = {
        k: torch.randn(v.shape, generator=generator, dtype=DTYPE) for k, v in toy().theta.items()
    }
    return toy()._replace(theta=theta)


def test_products_equal_the_dense_second_derivatives(record_property: Record) -> None:
    """Against torch's own Hessian of the flattened loss, in theta and phi together."""
    w = at_random()
    split = ravel(w.theta).numel()

    def flat_loss(flat: Tensor) -> Tensor:
        return inner(unravel(flat[:split], w.theta), unravel(flat[split:], w.phi), w.inner)

    both = torch.cat([ravel(w.theta), ravel(w.phi)])
    reference = torch.autograd.functional.hessian(flat_loss, both)
    graph = InnerGradient(PROBLEM, w.theta, w.phi, w.inner)
    hessian = dense(graph.hessian_product, both[:split])
    v = torch.linspace(-1, 1, split, dtype=DTYPE)
    cross = ravel(graph.cross_product(v))
    error = ((hessian - reference[:split, :split]).norm() / hessian.norm()).item()
    asymmetry = ((hessian - hessian.T).norm() / hessian.norm()).item()
    record_property("error", error)
    record_property("asymmetry", asymmetry)
    assert error < 1e-14
    assert asymmetry < 1e-14
    torch.testing.assert_close(cross, reference[split:, :split] @ v, rtol=1e-12, atol=1e-12)


def central_difference(w: SolvedProblem, direction: Tensor, h: float) -> float:
    up, down = (unravel(ravel(w.phi) + s * h * direction, w.phi) for s in (1, -1))
    return (solved_value(w, up) - solved_value(w, down)) / (2 * h)


@pytest.mark.parametrize("seed", [0, 1])
def test_derivative_of_the_fully_solved_problem(seed: int, record_property: Record) -> None:
    """Central differences of F(phi) with theta*(phi) solved anew by Newton's method."""
    w = toy()
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(ravel(w.phi).shape, generator=generator, dtype=DTYPE)
    direction /= direction.norm()
    hyper = Implicit(rtol=1e-13, max_iterations=1000)(*arguments(w))
    slope = (ravel(hyper.grad) @ direction).item()
    sizes = (3e-2, 3e-3, 3e-5)
    errors = [abs(central_difference(w, direction, h) - slope) for h in sizes]
    order = math.log(errors[0] / errors[1]) / math.log(10)
    record_property("order", order)
    record_property("error", errors[2])
    assert 1.9 < order < 2.1
    assert errors[2] < 2e-10  # h^2 of truncation and 1e-16 / h of rounding meet near 1e-11
    assert hyper.inner_gradient_norm < 1e-13


def test_implicit_equals_dense(record_property: Record) -> None:
    exact = ExactDense()(*arguments(toy()))
    error = relative_error(
        Implicit(rtol=1e-13, max_iterations=1000)(*arguments(toy())).grad, exact.grad
    )
    record_property("error", error)
    assert error < 1e-12


def test_value_gap_orders(record_property: Record) -> None:
    """Error O(nu) one-sided and O(nu^2) central, the penalised problems solved to rounding."""
    w = toy()
    exact = ExactDense()(*arguments(w)).grad
    for order, low, high in ((1, 0.85, 1.15), (2, 1.85, 2.15)):
        errors = [
            relative_error(ValueGap(nu, order, minimiser=newton)(*arguments(w)).grad, exact)
            for nu in (1e-3, 1e-4)
        ]
        slope = math.log10(errors[0] / errors[1])
        record_property(f"order_{order}", slope)
        record_property(f"error_{order}", errors[0])
        assert low < slope < high


def test_the_error_is_proportional_to_the_inner_gradient(record_property: Record) -> None:
    """Half as far from theta*, half the error: the reason to log `inner_gradient_norm`."""
    w = toy()
    exact = ExactDense()(*arguments(w)).grad
    generator = torch.Generator().manual_seed(4)
    away = torch.randn(ravel(w.theta).shape, generator=generator, dtype=DTYPE)
    errors, norms = [], []
    for size in (1e-5, 1e-6):
        theta = unravel(ravel(w.theta) + size * away, w.theta)
        hyper = ExactDense()(*arguments(w._replace(theta=theta)))
        errors.append(relative_error(hyper.grad, exact))
        norms.append(hyper.inner_gradient_norm.item())
    ratio = math.log(errors[0] / errors[1]) / math.log(norms[0] / norms[1])
    record_property("order", ratio)
    assert 0.9 < ratio < 1.1


def test_an_indefinite_hessian_is_said_and_gauss_newton_solves_it() -> None:
    w = at_random()
    with pytest.warns(ConvergenceWarning, match="negative_curvature"):
        stopped = Implicit()(*arguments(w))
    assert stopped.linear is not None
    assert stopped.linear.status.item() == Status.NEGATIVE_CURVATURE
    assert ExactDense()(*arguments(w)).metrics()["linear_status"] == Status.NEGATIVE_CURVATURE
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solved = Implicit(curvature=GaussNewton(), damping=DECAY)(*arguments(w))
    assert solved.linear is not None
    assert solved.linear.status.item() == Status.CONVERGED


def test_gauss_newton_is_positive_and_close_to_the_hessian(record_property: Record) -> None:
    product = GaussNewton().products(PROBLEM, at_random().theta, toy().phi, toy().inner)
    matrix = dense(product, ravel(toy().theta))
    assert (matrix - matrix.T).norm() < 1e-14 * matrix.norm()
    assert torch.linalg.eigvalsh(matrix).min() > -1e-14 * matrix.norm()
    exact = ravel(ExactDense()(*arguments(toy())).grad)
    estimator = Implicit(curvature=GaussNewton(), damping=DECAY, rtol=1e-8, max_iterations=500)
    close = ravel(estimator(*arguments(toy())).grad)
    cosine = torch.cosine_similarity(exact, close, dim=0).item()
    record_property("cosine", cosine)
    assert cosine > 0.99


def test_gauss_newton_is_the_hessian_at_a_realizable_optimum(record_property: Record) -> None:
    """Every x with y = mean(x) +- s(x) and U(x) = (lam/2) s(x)^-2: Hessian = lam Fisher there."""
    lam = 0.8
    theta = at_random(3).theta
    half = toy().inner.x
    with torch.no_grad():
        mean, log_std = predict(theta, toy().inner).unbind(-1)
    x = torch.cat([half, half])
    y = torch.cat([mean + log_std.exp(), mean - log_std.exp()])
    data = toy().inner._replace(x=x, y=y)
    phi = {"U": 0.5 * lam * (-2 * log_std).exp().repeat(2)}

    def loss(outputs: Tensor, phi: Params, data: object) -> Tensor:
        m, s = outputs.unbind(-1)
        return (phi["U"] * ((m - y).square() + (2 * s).exp()) - lam * s).mean()

    def fisher(outputs: Tensor, phi: Params, data: object) -> Tensor:
        s = outputs[..., 1]
        information = torch.stack([(-2 * s).exp(), 2 * torch.ones_like(s)], -1)
        return torch.diag_embed(lam * information / len(s))

    problem = BilevelProblem.of_outputs(predict, loss, outer)
    graph = InnerGradient(problem, theta, phi, data)
    hessian = dense(graph.hessian_product, ravel(theta))
    assert graph.norm < 1e-13
    for metric in (None, fisher):
        product = GaussNewton(metric).products(problem, theta, phi, data)
        error = ((dense(product, ravel(theta)) - hessian).norm() / hessian.norm()).item()
        record_property("error", error)
        assert error < 1e-13


def test_products_through_an_ensemble_of_networks() -> None:
    """The project's own ensemble by functional_call: each member's Hessian is that of it alone."""
    generator = torch.Generator().manual_seed(0)
    network = GaussianEnsemble(2, 1, members=3, hidden=(4,), generator=generator).double()
    theta: Params = dict(network.named_parameters())
    x, y = toy().inner.x, toy().inner.y.unsqueeze(-1)

    def nll(theta: Params, phi: Params, data: object) -> Tensor:
        return -torch.func.functional_call(network, theta, (x,)).log_prob(y).mean(-1)

    graph = InnerGradient(BilevelProblem(nll, outer, ensemble=True), theta, {}, None)
    flat = ravel(theta, ensemble=True).detach()
    found = dense(graph.hessian_product, flat)
    for e in range(3):

        def alone(vector: Tensor, e: int = e) -> Tensor:
            rows = [vector if i == e else flat[i] for i in range(3)]
            return nll(unravel(torch.stack(rows), theta), {}, None)[e]

        reference = torch.autograd.functional.hessian(alone, flat[e])
        torch.testing.assert_close(found[e], reference, rtol=1e-12, atol=1e-12)


def test_gauss_newton_needs_the_outputs() -> None:
    problem = BilevelProblem(inner, outer)
    with pytest.raises(InputError, match="of_outputs"):
        Implicit(curvature=GaussNewton())(problem, *arguments(toy())[1:])


def test_wrong_shapes_of_losses_are_named() -> None:
    w = toy()
    with pytest.raises(InputError, match="inner loss has shape"):
        InnerGradient(PROBLEM._replace(ensemble=True), w.theta, w.phi, w.inner)
    vector = PROBLEM._replace(outer=lambda t, p, d: predict(t, d)[:, 0])
    with pytest.raises(InputError, match="outer loss has shape"):
        vector.outer_gradients(w.theta, w.phi, w.outer)


@pytest.mark.slow
def test_a_product_costs_about_two_and_a_half_gradients(record_property: Record) -> None:
    """Five members of 3 x 200 on 256 samples; the median of repeated timings, generous to noise."""

    members, width, rows = 5, 200, 256
    generator = torch.Generator().manual_seed(0)
    sizes = [17, width, width, width, 12]
    theta = {
        str(i): torch.randn(members, a, b, generator=generator) / a**0.5
        for i, (a, b) in enumerate(pairwise(sizes))
    }
    x = torch.randn(members, rows, sizes[0], generator=generator)

    def loss(theta: Params, phi: Params, x: Tensor) -> Tensor:
        for name in list(theta)[:-1]:
            x = torch.nn.functional.silu(x @ theta[name])
        return (phi["u"] * (x @ theta["3"]).square()).mean((-2, -1))

    phi = {"u": torch.ones(sizes[-1])}
    problem = BilevelProblem(loss, lambda t, p, d: loss(t, p, d).mean(), ensemble=True)
    graph = InnerGradient(problem, theta, phi, x)
    v = ravel(theta, ensemble=True)

    def seconds(call: Callable[[], object]) -> float:
        times = []
        for _ in range(30):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
        return sorted(times)[len(times) // 2]

    one = seconds(lambda: problem.outer_gradients(theta, phi, x))
    ratio = seconds(lambda: graph.hessian_product(v)) / one
    record_property("ratio", ratio)
    assert ratio < 4.0
