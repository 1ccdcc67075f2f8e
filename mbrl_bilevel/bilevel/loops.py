"""Whole bilevel loops: they own theta and phi, and keep both optimisers over all outer steps."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mbrl_bilevel.bilevel.hypergradient import Estimator, Hypergradient
from mbrl_bilevel.bilevel.minimise import minimise
from mbrl_bilevel.bilevel.parameters import Params, gradients, leaves, unravel
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient
from mbrl_bilevel.bilevel.soba import Soba
from mbrl_bilevel.bilevel.value_gap import Minimiser, difference, worst_norm
from mbrl_bilevel.errors import InputError

MakeOptimizer = Callable[[Iterable[Tensor]], Optimizer]


class SingleLoop:
    """theta, v and phi move together, one batch each a step (SOBA, MA-SOBA; Dagreou et al. 2022).

    All three directions are taken at the same point, and one gradient graph serves all of them.
    """

    def __init__(
        self,
        soba: Soba,
        theta: Params,
        phi: Params,
        *,
        inner_optimizer: MakeOptimizer,
        outer_optimizer: MakeOptimizer,
    ) -> None:
        self.soba, self.theta, self.phi = soba, _owned(theta), _owned(phi)
        self.inner_optimizer = inner_optimizer(self.theta.values())
        self.outer_optimizer = outer_optimizer(self.phi.values())

    def step(self, inner_data: Any, outer_data: Any) -> Hypergradient:
        """One step of v, theta and phi."""
        problem = self.soba.problem
        inner = InnerGradient(problem, self.theta, self.phi, inner_data)
        outer = problem.outer_gradients(self.theta, self.phi, outer_data)
        hyper = self.soba.advance(inner, outer)
        follow(self.inner_optimizer, self.theta, inner.gradient)
        follow(self.outer_optimizer, self.phi, hyper.grad)
        return hyper


class DoubleLoop:
    """AmIGO (Arbel and Mairal 2022): inner steps, an estimate, one outer step; all warm-started.

    theta goes on from where the last outer step left it, and so does the estimator's state. Pass
    `Implicit(max_iterations=10, warn=False)` for a fixed budget of products.

    Raises:
        InputError: fewer than 1 inner steps.
    """

    def __init__(
        self,
        problem: BilevelProblem,
        estimator: Estimator,
        theta: Params,
        phi: Params,
        *,
        inner_optimizer: MakeOptimizer,
        outer_optimizer: MakeOptimizer,
        inner_steps: int,
    ) -> None:
        if inner_steps < 1:
            raise InputError(f"{inner_steps} inner steps per outer step: give at least 1")
        self.problem, self.estimator, self.inner_steps = problem, estimator, inner_steps
        self.theta, self.phi = _owned(theta), _owned(phi)
        self.inner_optimizer = inner_optimizer(self.theta.values())
        self.outer_optimizer = outer_optimizer(self.phi.values())
        self.state: Tensor | None = None

    def step(self, inner_batches: Callable[[], Any], outer_data: Any) -> Hypergradient:
        """One outer step; `inner_batches()` is asked for every inner step and for the estimate."""
        for _ in range(self.inner_steps):
            loss = self.problem.inner_loss(self.theta, self.phi, inner_batches())
            follow(self.inner_optimizer, self.theta, gradients(loss, self.theta))
        hyper = self.estimator(
            self.problem, self.theta, self.phi, inner_batches(), outer_data, self.state
        )
        self.state = hyper.state
        follow(self.outer_optimizer, self.phi, hyper.grad)
        return hyper


class FirstOrderLoop:
    """Single loop without second derivatives (F2SA, Kwon et al. 2023; central in the penalty nu).

    Two copies of theta follow inner + nu outer and inner - nu outer, and phi their difference
    quotient. Both copies see the same batches, so that most of the noise cancels in the quotient.

    Raises:
        InputError: a `nu` that is not positive.
    """

    def __init__(
        self,
        problem: BilevelProblem,
        theta: Params,
        phi: Params,
        *,
        inner_optimizer: MakeOptimizer,
        outer_optimizer: MakeOptimizer,
        nu: float = 1e-2,
    ) -> None:
        if not nu > 0:
            raise InputError(f"penalty nu {nu}: give a positive number")
        self.problem, self.penalties = problem, (nu, -nu)
        self.copies, self.phi = [_owned(theta), _owned(theta)], _owned(phi)
        self.inner_optimizers = [inner_optimizer(copy.values()) for copy in self.copies]
        self.outer_optimizer = outer_optimizer(self.phi.values())

    @property
    def theta(self) -> Params:
        """The mean of both copies, which is theta* up to nu^2."""
        plus, minus = self.copies
        return {k: torch.lerp(plus[k].detach(), minus[k].detach(), 0.5) for k in plus}

    def step(self, inner_data: Any, outer_data: Any) -> Hypergradient:
        """One step of both copies of theta, and of phi along their difference quotient."""
        problem, phi = self.problem, self.phi
        grad, pair = difference(problem, self.copies, phi, inner_data, outer_data, self.penalties)
        for copy, optimizer, found in zip(self.copies, self.inner_optimizers, pair, strict=True):
            follow(optimizer, copy, unravel(found.theta, copy))
        follow(self.outer_optimizer, phi, grad)
        outer = (pair[0].loss - pair[1].loss) / (self.penalties[0] - self.penalties[1])
        return Hypergradient(grad, outer, worst_norm(pair))


def follow(optimizer: Optimizer, parameters: Params, grad: Params) -> None:
    """One step of `optimizer` along `grad`."""
    for name, p in parameters.items():
        p.grad = grad[name].detach()
    optimizer.step()


def cold_restart(
    problem: BilevelProblem,
    start: Params,
    phi: Params,
    inner_data: Any,
    outer_data: Any,
    minimiser: Minimiser = minimise,
) -> Tensor:
    """The outer loss of an inner level trained from `start` under the final phi alone.

    A warm-started theta has seen the outer data through many phi and can remember it; a gap between
    its outer loss and this one says so.
    """
    theta = minimiser(lambda moved: problem.inner_loss(moved, phi, inner_data), start)
    with torch.no_grad():
        return problem.outer(theta, phi, outer_data)


def _owned(parameters: Params) -> Params:
    return leaves({name: p.detach().clone() for name, p in parameters.items()})
