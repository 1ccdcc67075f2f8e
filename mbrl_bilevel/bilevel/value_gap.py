"""A hypergradient from first derivatives alone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.hypergradient import Hypergradient
from mbrl_bilevel.bilevel.linear_solve import largest_eigenvalue, norm
from mbrl_bilevel.bilevel.minimise import minimise
from mbrl_bilevel.bilevel.parameters import Params, gradients, leaves, ravel, unravel
from mbrl_bilevel.bilevel.problem import BilevelProblem, Partials, partials
from mbrl_bilevel.errors import InputError

Minimiser = Callable[[Callable[[Params], Tensor], Params], Params]


@dataclass(frozen=True)
class ValueGap:
    """dF/dphi as the derivative by nu, at 0, of d/dphi min over theta of inner + nu outer.

    `order` 2 is the central difference of F2SA-p, error O(nu^2), `order` 1 the one-sided difference
    of Kwon et al. (2023), error O(nu). Each penalised problem is solved by `minimiser(loss,
    start)`, whose gradient tolerance has to stay well below nu times the accuracy wanted. `state`
    keeps the penalised solutions, [2, *e, n].

    For inner levels too large to be solved, `steps` replaces the minimiser: that many gradient
    steps from theta on both penalised problems, of one length per member, the inverse of the
    largest curvature. From theta* the estimate is, but for the penalty's error, that of
    `Unrolled(steps)`, at the memory of a single gradient; it has no state.

    Raises:
        InputError: an order that is not 1 or 2, a `nu` that is not positive, `steps` below 1.
    """

    nu: float = 1e-3
    order: int = 2
    minimiser: Minimiser = minimise
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise InputError(f"value gap by {self.steps} gradient steps: give at least 1, or None")
        if self.order not in (1, 2) or not self.nu > 0:
            raise InputError(
                f"value gap of order {self.order} at nu {self.nu}: the order is 1 or 2, nu positive"
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
        """dF/dphi by first derivatives at the penalised problems, warm-started from `state`."""

        def loss(moved: Params, nu: float) -> Tensor:
            return penalised(problem, moved, phi, inner_data, outer_data, nu)

        penalties = (self.nu, -self.nu if self.order == 2 else 0.0)
        starts, minimiser = [theta, theta], self.minimiser
        if self.steps is None and state is not None:
            starts = [unravel(flat, theta) for flat in state]
        if self.steps is not None:
            length = _step_length(partial(loss, nu=self.nu), theta, problem)
            minimiser = partial(descend, length=length, steps=self.steps)
        ends = [
            minimiser(partial(loss, nu=nu), start)
            for nu, start in zip(penalties, starts, strict=True)
        ]
        grad, pair = difference(problem, ends, phi, inner_data, outer_data, penalties)
        with torch.no_grad():
            outer = problem.outer(theta, phi, outer_data)
        flat = torch.stack([ravel(end, problem.ensemble) for end in ends])
        return Hypergradient(
            grad, outer, worst_norm(pair), state=flat if self.steps is None else None
        )


def descend(
    loss: Callable[[Params], Tensor], start: Params, *, length: Params, steps: int
) -> Params:
    """Plain gradient steps from `start`; `length` is the step size of every number."""
    theta = start
    for _ in range(steps):
        theta = leaves(theta)
        with torch.enable_grad():
            slope = gradients(loss(theta), theta)
        theta = {name: p.detach() - length[name] * slope[name] for name, p in theta.items()}
    return theta


def _step_length(
    loss: Callable[[Params], Tensor], theta: Params, problem: BilevelProblem
) -> Params:
    """Inverse of every member's largest curvature, by differences of gradients alone."""
    flat = ravel(theta, problem.ensemble).detach()
    # the root of the precision balances rounding and curvature's own change
    width = torch.finfo(flat.dtype).eps ** 0.5 * norm(flat).clamp_min(1.0).unsqueeze(-1)

    def gradient(at: Tensor) -> Tensor:
        moved = leaves(unravel(at, theta))
        with torch.enable_grad():
            return ravel(gradients(loss(moved), moved), problem.ensemble)

    here = gradient(flat)

    def product(v: Tensor) -> Tensor:
        # v is a unit vector, or as good as one: power iterations normalise
        return (gradient(flat + width * v) - here) / width

    return unravel((1.0 / largest_eigenvalue(product, flat)).expand_as(flat), theta)


def penalised(
    problem: BilevelProblem,
    theta: Params,
    phi: Params,
    inner_data: Any,
    outer_data: Any,
    nu: float,
) -> Tensor:
    """inner + nu outer, summed over members."""
    loss = problem.inner_loss(theta, phi, inner_data)
    return loss + nu * problem.outer(theta, phi, outer_data) if nu else loss


def difference(
    problem: BilevelProblem,
    thetas: list[Params],
    phi: Params,
    inner_data: Any,
    outer_data: Any,
    penalties: tuple[float, float],
) -> tuple[Params, tuple[Partials, Partials]]:
    """Difference quotient over nu of d/dphi (inner + nu outer), and the two partials behind it."""

    def at(theta: Params, nu: float) -> Partials:
        return partials(
            lambda t, p: penalised(problem, t, p, inner_data, outer_data, nu),
            theta,
            phi,
            problem.ensemble,
        )

    plus, minus = at(thetas[0], penalties[0]), at(thetas[1], penalties[1])
    width = penalties[0] - penalties[1]
    return {k: (plus.phi[k] - minus.phi[k]) / width for k in phi}, (plus, minus)


def worst_norm(pair: tuple[Partials, Partials]) -> Float[Tensor, "*e"]:
    """The larger of the two gradient norms left in theta, per member."""
    return torch.maximum(norm(pair[0].theta), norm(pair[1].theta))
