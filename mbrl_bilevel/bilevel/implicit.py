"""Hypergradients by implicit differentiation, with a formed Hessian or by products alone."""

from dataclasses import dataclass, field
from typing import Any

import torch
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
    norm,
    solve,
)
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient


@dataclass(frozen=True)
class ExactDense:
    """Forms the Hessian of every member and factorises it: for small problems and as an oracle.

    An indefinite Hessian is solved all the same, with the status NEGATIVE_CURVATURE.
    """

    damping: float = 0.0

    def __call__(
        self,
        problem: BilevelProblem,
        theta: Params,
        phi: Params,
        inner_data: Any,
        outer_data: Any,
        state: Tensor | None = None,
    ) -> Hypergradient:
        """Raises torch.linalg.LinAlgError for a singular Hessian."""
        inner = InnerGradient(problem, theta, phi, inner_data)
        outer = problem.outer_gradients(theta, phi, outer_data)
        hessian = dense(inner.hessian_product, outer.theta)
        hessian = hessian + self.damping * torch.eye(hessian.shape[-1]).to(hessian)
        v = torch.linalg.solve(hessian, outer.theta)
        indefinite = torch.linalg.cholesky_ex(hessian).info > 0
        residual = norm(outer.theta - (hessian @ v.unsqueeze(-1)).squeeze(-1))
        status = torch.where(indefinite, int(Status.NEGATIVE_CURVATURE), int(Status.CONVERGED))
        solution = LinearSolution(v, residual, norm(outer.theta), torch.zeros_like(status), status)
        return from_linear_solution(inner, outer, solution)


@dataclass(frozen=True)
class Implicit:
    """Matrix-free: solves H v = dF/dtheta by products with H alone (theory T8).

    H is the inner Hessian, or with `curvature=GaussNewton()` its positive semi-definite part.
    Warm-started at the previous v (`state`). `method=Neumann()` gives the truncated series of
    Lorraine et al. (2020). Directions of negative curvature end the solve where it stands: train
    the inner level further, add `damping`, or use Gauss-Newton products. `warn=False` is for
    budgets that are meant to end early.
    """

    curvature: GaussNewton | None = None
    method: Method = field(default_factory=CG)
    damping: float = 0.0
    rtol: float = 1e-5
    max_iterations: int = 100
    check_every: int | None = 1
    warn: bool = True

    def __call__(
        self,
        problem: BilevelProblem,
        theta: Params,
        phi: Params,
        inner_data: Any,
        outer_data: Any,
        state: Tensor | None = None,
    ) -> Hypergradient:
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
        return from_linear_solution(inner, outer, solution)
