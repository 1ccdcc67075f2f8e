"""Hypergradient through the steps of the inner optimiser."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.hypergradient import Hypergradient
from mbrl_bilevel.bilevel.linear_solve import largest_eigenvalue, norm
from mbrl_bilevel.bilevel.parameters import Params, gradients, leaves, ravel, unravel
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient
from mbrl_bilevel.errors import InputError


@dataclass(frozen=True)
class Unrolled:
    """Differentiates outer(theta_K, phi) through K gradient steps that start at theta.

    Plain SGD on purpose: the square root in Adam has no derivative at zero. Memory grows with K
    graphs. Started at theta*, the error falls by the inner rate (1 - step_size * curvature) a step
    (Shaban et al. 2019). A `step_size` of None takes, per member, the inverse of the largest
    curvature at theta, estimated by 10 Hessian-vector products.

    Raises:
        InputError: fewer than one step, or a step size that is not positive.
    """

    steps: int
    step_size: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or not (self.step_size is None or self.step_size > 0):
            raise InputError(
                f"unrolling {self.steps} steps of size {self.step_size}: both must be positive"
            )

    def __call__(
        self,
        problem: BilevelProblem,
        theta: Params,
        phi: Params,
        inner_data: Any,
        outer_data: Any,
        state: Float[Tensor, "*e n"] | None = None,
    ) -> Hypergradient:
        """dF/dphi through the inner steps from theta; `state` is not used."""
        length = self._length(problem, theta, phi, inner_data)
        moved, phi = leaves(theta), leaves(phi)
        with torch.enable_grad():
            for _ in range(self.steps):
                loss = problem.inner_loss(moved, phi, inner_data)
                slope = gradients(loss, moved, create_graph=True)
                moved = {name: p - length[name] * slope[name] for name, p in moved.items()}
            outer = problem.outer(moved, phi, outer_data)
            grad = gradients(outer, phi)
        size = norm(ravel({k: g.detach() for k, g in slope.items()}, problem.ensemble))
        return Hypergradient(grad, outer.detach(), size)

    def _length(
        self, problem: BilevelProblem, theta: Params, phi: Params, inner_data: Any
    ) -> dict[str, Tensor]:
        """The step size of every parameter's members, shaped to multiply its gradient."""
        flat = ravel(theta, problem.ensemble).detach()
        if self.step_size is not None:
            return unravel(torch.full_like(flat, self.step_size), theta)
        inner = InnerGradient(problem, theta, phi, inner_data)
        length = 1.0 / largest_eigenvalue(inner.hessian_product, flat)
        return unravel(length.expand_as(flat), theta)
