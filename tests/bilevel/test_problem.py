"""Second-order products of the inner loss against dense second derivatives."""

import time
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.bilevel.linear_solve import dense
from mbrl_bilevel.bilevel.parameters import Params, ravel, unravel
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from tests.bilevel.neural_problem import (
    DTYPE,
    PROBLEM,
    at_random,
    inner,
    outer,
    predict,
    toy,
)

Record = Callable[[str, object], None]


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
