"""The outer level of a single-loop method, for use beside any training loop of the inner level."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.hypergradient import Hypergradient, from_linear_solution
from mbrl_bilevel.bilevel.linear_solve import LinearSolution, Matvec, MinimalResidual, solve
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient, Partials
from mbrl_bilevel.errors import InputError


@dataclass
class Soba:
    """SOBA (Dagreou et al. 2022): the linear-system variable v moves one step a call, on one batch.

    Meant to run every few steps of a loop that owns theta:

        hyper = soba.step(theta, phi, inner_batch, outer_batch)
        then an outer optimiser that is kept over the whole run follows hyper.grad

    The step of v is scaled by the curvature it meets (a relaxed minimal-residual step), so that
    there is no step size to tune. `averaging` < 1 is MA-SOBA (Chen et al. 2023): the direction is a
    moving average with that rate. `linear_steps` > 1 takes several steps of v on one batch. Nothing
    here waits for the device.

    A network that is not at a minimum has an indefinite Hessian with curvatures near zero, along
    which v grows: give `curvature=GaussNewton()` and some `damping` there.
    """

    problem: BilevelProblem
    curvature: GaussNewton | None = None
    damping: float = 0.0
    relaxation: float = 0.5
    averaging: float = 1.0
    linear_steps: int = 1
    v: Tensor | None = None
    direction: Params | None = None

    def __post_init__(self) -> None:
        if not (0 < self.relaxation <= 1 and 0 < self.averaging <= 1):
            raise InputError(
                f"relaxation {self.relaxation} and averaging {self.averaging}: both lie in (0, 1]"
            )

    def step(self, theta: Params, phi: Params, inner_data: Any, outer_data: Any) -> Hypergradient:
        """Moves v and gives the direction of phi at (theta, phi); neither of these is changed."""
        inner = InnerGradient(self.problem, theta, phi, inner_data)
        return self.advance(inner, self.problem.outer_gradients(theta, phi, outer_data))

    def advance(self, inner: InnerGradient, outer: Partials) -> Hypergradient:
        """`step` on derivatives that the caller has already."""
        hyper = from_linear_solution(inner, outer, self.update_v(inner, outer))
        return hyper._replace(grad=self._average(hyper.grad))

    def update_v(self, inner: InnerGradient, outer: Partials) -> LinearSolution:
        """v <- v + step * r with r = dF/dtheta - H v, the step scaled by the curvature along r."""
        matvec: Matvec = inner.hessian_product
        if self.curvature is not None:
            matvec = self.curvature.products(self.problem, inner.theta, inner.phi, inner.data)
        solution = solve(
            matvec,
            outer.theta,
            method=MinimalResidual(self.relaxation),
            x0=self.v,
            damping=self.damping,
            rtol=0.0,
            max_iterations=self.linear_steps,
            check_every=None,
        )
        self.v = solution.x
        return solution

    def _average(self, grad: Params) -> Params:
        if self.averaging == 1.0:
            return grad
        if self.direction is None:
            self.direction = {k: torch.where(g.isfinite(), g, 0.0) for k, g in grad.items()}
        else:  # what is not finite would stay in an average for ever
            old = self.direction
            new = {k: old[k].lerp(g, self.averaging) for k, g in grad.items()}
            self.direction = {k: torch.where(g.isfinite(), g, old[k]) for k, g in new.items()}
        return self.direction

    def state_dict(self) -> Params:
        """Everything that a checkpoint has to hold, as tensors."""
        state = {} if self.v is None else {"v": self.v}
        return state | {f"direction.{k}": g for k, g in (self.direction or {}).items()}

    def load_state_dict(self, state: Params) -> None:
        """Continues from `state_dict()` of another run."""
        self.v = state.get("v")
        prefix = "direction."
        found = {k.removeprefix(prefix): g for k, g in state.items() if k.startswith(prefix)}
        self.direction = found or None
