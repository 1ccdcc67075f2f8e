"""Hypergradients by implicit differentiation, with a formed Hessian or by products alone."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.hypergradient import (
    Hypergradient,
    from_linear_solution,
    warn_unless_converged,
)
from mbrl_bilevel.bilevel.linear_solve import (
    CG,
    LinearSolution,
    Matvec,
    Method,
    Status,
    dense,
    dot,
    norm,
    solve,
)
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient
from mbrl_bilevel.errors import InputError


@dataclass(frozen=True)
class ExactDense:
    """Forms the Hessian of every member and factorises it: for small problems and as an oracle.

    An indefinite Hessian is solved all the same, with the status NEGATIVE_CURVATURE. Eigenvalues
    within rounding (n eps of the largest) count as 0.
    """

    damping: float = 0.0

    def __call__(
        self,
        problem: BilevelProblem,
        theta: Params,
        phi: Params,
        inner_data: Any,
        outer_data: Any,
        state: Float[Tensor, "*e n"] | None = None,
    ) -> Hypergradient:
        """dF/dphi by a factorised Hessian.

        Raises:
            InputError: a Hessian that is singular to rounding.
        """
        inner = InnerGradient(problem, theta, phi, inner_data)
        outer = problem.outer_gradients(theta, phi, outer_data)
        hessian = dense(inner.hessian_product, outer.theta)
        hessian = hessian + self.damping * torch.eye(hessian.shape[-1]).to(hessian)
        indefinite = _smallest_eigenvalue(hessian) < 0
        v = torch.linalg.solve(hessian, outer.theta)
        residual = norm(outer.theta - (hessian @ v.unsqueeze(-1)).squeeze(-1))
        status = torch.where(indefinite, int(Status.NEGATIVE_CURVATURE), int(Status.CONVERGED))
        solution = LinearSolution(v, residual, norm(outer.theta), torch.zeros_like(status), status)
        return from_linear_solution(inner, outer, solution)


def _smallest_eigenvalue(hessian: Float[Tensor, "*e n n"]) -> Float[Tensor, "*e"]:
    """Raises InputError where any eigenvalue is 0 to rounding."""
    exact = hessian.double()
    eigenvalues = torch.linalg.eigvalsh(0.5 * (exact + exact.mT))
    sizes = eigenvalues.abs()
    condition = sizes.amax(-1) / sizes.amin(-1)
    rounding = hessian.shape[-1] * torch.finfo(hessian.dtype).eps
    if not bool((condition * rounding < 1).all()):
        raise InputError(
            f"the inner Hessian is singular to rounding (condition number "
            f"{float(condition.amax()):.1e}): add damping"
        )
    return eigenvalues.amin(-1)


@dataclass(frozen=True)
class Implicit:
    """Matrix-free: solves H v = dF/dtheta by products with H alone (theory T8).

    H is the inner Hessian, or with `curvature=GaussNewton()` its positive semi-definite part.
    Warm-started at the previous v (`state`). `method=Neumann()` gives the truncated series of
    Lorraine et al. (2020). Directions of negative curvature end the solve where it stands: train
    the inner level further, add `damping`, or use Gauss-Newton products. `warn=False` is for
    budgets that are meant to end early.

    With `max_residual` members whose relative residual ends above it (1 is that of v = 0), or is
    not finite, take the `first_order_direction` instead and are counted in `fallbacks`.

    Raises:
        InputError: a `max_residual` that is not positive.
    """

    curvature: GaussNewton | None = None
    method: Method = field(default_factory=CG)
    damping: float = 0.0
    rtol: float = 1e-5
    max_iterations: int = 100
    check_every: int | None = 1
    warn: bool = True
    max_residual: float | None = None

    def __post_init__(self) -> None:
        if self.max_residual is not None and not self.max_residual > 0:
            raise InputError(f"max_residual {self.max_residual} of a solve: give a positive number")

    def __call__(
        self,
        problem: BilevelProblem,
        theta: Params,
        phi: Params,
        inner_data: Any,
        outer_data: Any,
        state: Float[Tensor, "*e n"] | None = None,
    ) -> Hypergradient:
        """dF/dphi, by a solve that starts from `state`, the v of the previous call."""
        inner = InnerGradient(problem, theta, phi, inner_data)
        outer = problem.outer_gradients(theta, phi, outer_data)
        matvec: Matvec = inner.hessian_product
        if self.curvature is not None:
            matvec = self.curvature.products(problem, theta, phi, inner_data)
        solution = solve(
            matvec,
            outer.theta,
            method=self.method,
            x0=state,
            damping=self.damping,
            rtol=self.rtol,
            max_iterations=self.max_iterations,
            check_every=self.check_every,
        )
        if self.warn:
            warn_unless_converged(solution)
        if self.max_residual is None:
            return from_linear_solution(inner, outer, solution)
        failed = ~(solution.relative_residual <= self.max_residual)
        first_order = first_order_direction(matvec, outer.theta, self.damping)
        v = torch.where(failed.unsqueeze(-1), first_order, solution.x)
        found = from_linear_solution(inner, outer, solution._replace(x=v))
        return found._replace(fallbacks=failed.sum())


def first_order_direction(
    matvec: Matvec, b: Float[Tensor, "*e n"], damping: float = 0.0
) -> Float[Tensor, "*e n"]:
    """v = b / (|q^T H q| + damping), q = b / |b|: stands in for an H^-1 b that is not found.

    The hypergradient is then that through a single inner gradient step from theta (Luketina et al.
    2016), whose length is the inverse size of the curvature along b. One product; 0 where that
    curvature is 0.
    """
    q = b / norm(b).clamp_min(torch.finfo(b.dtype).tiny).unsqueeze(-1)
    curvature = dot(q, matvec(q)).abs() + damping
    return torch.where(curvature > 0, b / curvature, 0.0)
