"""Solving A x = b from products with A alone, one independent system per ensemble member.

What is solved (`matvec`, `b`), how (`CG`, `Neumann`, `MinimalResidual`), how exactly (`rtol`,
`max_iterations`) and how regularised (`damping`) are independent arguments. Failure is a value:
every system comes back with a status, its residual and its iterations.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError

Matvec = Callable[[Tensor], Tensor]


class Status(IntEnum):
    """How a solve ended, per system."""

    CONVERGED = 0
    MAX_ITERATIONS = 1
    NEGATIVE_CURVATURE = 2
    """A direction p with p^T A p <= 0 was met: A is not positive definite; x is from before it."""
    NON_FINITE = 3
    """An infinite or undefined number appeared; x is the last finite iterate."""


class LinearSolution(NamedTuple):
    """x with |A x - b| = residual_norm, |b| = rhs_norm, and each system's `Status` code."""

    x: Float[Tensor, "*e n"]
    residual_norm: Float[Tensor, "*e"]
    rhs_norm: Float[Tensor, "*e"]
    iterations: Int[Tensor, "*e"]
    status: Int[Tensor, "*e"]

    @property
    def relative_residual(self) -> Float[Tensor, "*e"]:
        """|A x - b| / |b|: 0 is solved, 1 is no better than x = 0."""
        return self.residual_norm / self.rhs_norm.clamp_min(torch.finfo(self.x.dtype).tiny)


class Iterate(NamedTuple):
    """Where an iteration stands: x, its residual r = b - A x and the next direction p."""

    x: Float[Tensor, "*e n"]
    r: Float[Tensor, "*e n"]
    p: Float[Tensor, "*e n"]


Step = Callable[[Iterate, Tensor, Tensor], Iterate]
"""The next iterate, from this one, the product A p and the curvature p^T A p > 0."""


@runtime_checkable
class Method(Protocol):
    """An iteration that spends one product A p a step."""

    def start(self, matvec: Matvec, r: Float[Tensor, "*e n"]) -> Step:
        """The step for this A, given the first residual."""
        ...


@dataclass(frozen=True)
class CG:
    """Conjugate gradients for a positive definite A (Hestenes and Stiefel 1952)."""

    def start(self, matvec: Matvec, r: Float[Tensor, "*e n"]) -> Step:
        """`step`, which is the same for every A."""
        return self.step

    def step(
        self, at: Iterate, product: Float[Tensor, "*e n"], curvature: Float[Tensor, "*e 1"]
    ) -> Iterate:
        """The next iterate, given A p and p^T A p."""
        squared = dot(at.r, at.r)
        length = squared / curvature
        r = at.r - length * product
        return Iterate(at.x + length * at.p, r, r + dot(r, r) / squared * at.p)


@dataclass(frozen=True)
class Neumann:
    """Truncated Neumann series x = eta sum_k (I - eta A)^k b (Lorraine et al. 2020, section 4).

    `step_size` is eta, which must stay below 2 / (largest eigenvalue). None takes the inverse of
    that eigenvalue, estimated by `power_iterations` products.
    """

    step_size: float | None = None
    power_iterations: int = 10

    def start(self, matvec: Matvec, r: Float[Tensor, "*e n"]) -> Step:
        """Steps of length eta."""
        length = self.step_size or 1.0 / largest_eigenvalue(matvec, r, self.power_iterations)

        def step(at: Iterate, product: Tensor, curvature: Tensor) -> Iterate:
            r = at.r - length * product
            return Iterate(at.x + length * at.p, r, r)

        return step


@dataclass(frozen=True)
class MinimalResidual:
    """Steps along the residual, as long as shrinks it most: r^T A r / |A r|^2 (Saad 2003, 5.3.2).

    Slower than conjugate gradients, but it keeps no memory between steps, so that A and b may
    change from one step to the next, and with `relaxation` <= 1 it never lengthens the residual.
    """

    relaxation: float = 1.0

    def start(self, matvec: Matvec, r: Float[Tensor, "*e n"]) -> Step:
        """`step`, which is the same for every A."""
        return self.step

    def step(
        self, at: Iterate, product: Float[Tensor, "*e n"], curvature: Float[Tensor, "*e 1"]
    ) -> Iterate:
        """The next iterate, given A p and p^T A p, where p is the residual."""
        length = self.relaxation * curvature / dot(product, product)
        r = at.r - length * product
        return Iterate(at.x + length * at.p, r, r)


def largest_eigenvalue(
    matvec: Matvec, like: Float[Tensor, "*e n"], iterations: int = 10
) -> Float[Tensor, "*e 1"]:
    """Size of every system's largest eigenvalue, from below, by that many power iterations."""
    # A start without symmetry, orthogonal to no eigenvector that matters.
    places = torch.arange(like.shape[-1], dtype=like.dtype, device=like.device)
    p, tiny = torch.cos(2.0 * places + 1.0).expand_as(like), torch.finfo(like.dtype).tiny
    for _ in range(iterations):
        p = matvec(p / norm(p).clamp_min(tiny).unsqueeze(-1))
    return norm(p).clamp_min(tiny).unsqueeze(-1)


def dense(matvec: Matvec, like: Float[Tensor, "*e n"]) -> Float[Tensor, "*e n n"]:
    """The matrices behind `matvec`, column by column, for all members at once."""
    columns = torch.eye(like.shape[-1]).to(like)
    return torch.stack([matvec(column.expand_as(like)) for column in columns], -1)


def dot(a: Float[Tensor, "*e n"], b: Float[Tensor, "*e n"]) -> Float[Tensor, "*e 1"]:
    """Inner product of each system on its own, with the vector axis kept."""
    return (a * b).sum(-1, keepdim=True)


def norm(a: Float[Tensor, "*e n"]) -> Float[Tensor, "*e"]:
    """Euclidean norm of each system's vector."""
    return torch.linalg.vector_norm(a, dim=-1)


def solve(
    matvec: Matvec,
    b: Float[Tensor, "*e n"],
    *,
    method: Method | None = None,
    x0: Float[Tensor, "*e n"] | None = None,
    damping: float = 0.0,
    rtol: float = 1e-5,
    max_iterations: int = 100,
    check_every: int | None = 1,
) -> LinearSolution:
    """x with |(A + damping I) x - b| <= rtol |b| for a symmetric A, for all members at once.

    A = diag(A_1 ... A_E) acts on [E, n] (or [n]); every member has step lengths of its own and
    stands still from the moment it is done. `CONVERGED` is said only of a residual computed afresh,
    which costs one product at the end; a member whose running residual had drifted is restarted.
    The host waits for the device once every `check_every` iterations; with None never: exactly
    `max_iterations` steps are made and the running residual is reported.

    Raises:
        InputError: a negative `damping` or `rtol`, or `max_iterations` or `check_every` below 1.
    """
    _check(damping, rtol, max_iterations, check_every)
    # Unit largest entries keep squares of tiny gradients from vanishing in float32.
    largest = b.abs().amax(-1, keepdim=True)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    rhs = b / scale

    def apply(x: Tensor) -> Tensor:
        product = matvec(x)
        return product if damping == 0.0 else product + damping * x

    x = torch.zeros_like(b) if x0 is None else torch.where(largest > 0, x0 / scale, 0.0)
    r = rhs if x0 is None else rhs - apply(x)
    run = _Run(apply, rhs, rtol * norm(rhs), Iterate(x, r, r))
    step = (method or CG()).start(apply, r)
    for iteration in range(max_iterations):
        if check_every and iteration % check_every == 0 and run.finished():
            break
        run.advance(step)
    else:
        if check_every:
            run.recompute_residual()
    scale = scale.squeeze(-1)
    status = torch.where(run.status == _RUNNING, int(Status.MAX_ITERATIONS), run.status)
    return LinearSolution(
        run.at.x * scale.unsqueeze(-1), norm(run.at.r) * scale, norm(rhs) * scale, run.count, status
    )


_RUNNING = -1


class _Run:
    """The moving parts of one solve: the iterate, and each system's status and step count."""

    def __init__(self, apply: Matvec, rhs: Tensor, tolerance: Tensor, at: Iterate) -> None:
        self.apply, self.rhs, self.tolerance, self.at = apply, rhs, tolerance, at
        self.count = torch.zeros_like(tolerance, dtype=torch.int64)
        self.status = torch.full_like(self.count, _RUNNING)
        self._judge(at.r)

    def _judge(self, r: Tensor) -> None:
        """Statuses of the running systems from their residuals."""
        size = norm(r)
        self._end(size <= self.tolerance, Status.CONVERGED)
        self._end(~torch.isfinite(size), Status.NON_FINITE)

    def _end(self, which: Tensor, status: Status) -> None:
        running = self.status == _RUNNING
        self.status = torch.where(running & which, int(status), self.status)

    def advance(self, step: Step) -> None:
        """One step of every running system; the others stand still."""
        product = self.apply(self.at.p)
        curvature = dot(self.at.p, product)
        self._end(curvature.squeeze(-1) <= 0, Status.NEGATIVE_CURVATURE)
        new = step(self.at, product, curvature)
        size = (dot(new.r, new.r) + dot(new.x, new.x)).squeeze(-1)
        self._end(~torch.isfinite(size), Status.NON_FINITE)
        moving = self.status == _RUNNING
        keep = moving.unsqueeze(-1)
        self.at = Iterate(*(torch.where(keep, n, o) for n, o in zip(new, self.at, strict=True)))
        self.count += moving
        self._judge(self.at.r)

    def finished(self) -> bool:
        """Whether no system is left to move; apparent convergence is first put to the test."""
        if bool((self.status == _RUNNING).any()):
            return False
        self.recompute_residual()
        return not bool((self.status == _RUNNING).any())

    def recompute_residual(self) -> None:
        """Puts b - A x for the running residual; restarts systems that only seemed to converge."""
        r = self.rhs - self.apply(self.at.x)
        drifted = (self.status == int(Status.CONVERGED)) & ~(norm(r) <= self.tolerance)
        self.status = torch.where(drifted, _RUNNING, self.status)
        self.at = Iterate(self.at.x, r, torch.where(drifted.unsqueeze(-1), r, self.at.p))


def _check(damping: float, rtol: float, max_iterations: int, check_every: int | None) -> None:
    if not (damping >= 0 and math.isfinite(damping)):
        raise InputError(f"damping {damping} of a linear solve: give a finite number from 0 up")
    if not rtol >= 0:
        raise InputError(f"rtol {rtol} of a linear solve: give a number from 0 up")
    if max_iterations < 1:
        raise InputError(f"max_iterations {max_iterations} of a linear solve: give at least 1")
    if check_every is not None and check_every < 1:
        raise InputError(f"check_every {check_every} of a linear solve: give at least 1, or None")
