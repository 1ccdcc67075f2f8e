"""A hypergradient from first derivatives alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.hypergradient import Hypergradient
from mbrl_bilevel.bilevel.linear_solve import norm
from mbrl_bilevel.bilevel.minimise import minimise
from mbrl_bilevel.bilevel.parameters import Params, ravel, unravel
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
    """

    nu: float = 1e-3
    order: int = 2
    minimiser: Minimiser = minimise

    def __post_init__(self) -> None:
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
        state: Tensor | None = None,
    ) -> Hypergradient:
        penalties = (self.nu, -self.nu if self.order == 2 else 0.0)
        starts = [theta, theta] if state is None else [unravel(flat, theta) for flat in state]
        ends = []
        for nu, start in zip(penalties, starts, strict=True):

            def loss(moved: Params, nu: float = nu) -> Tensor:
                return penalised(problem, moved, phi, inner_data, outer_data, nu)

            ends.append(self.minimiser(loss, start))
        grad, pair = difference(problem, ends, phi, inner_data, outer_data, penalties)
        with torch.no_grad():
            outer = problem.outer(theta, phi, outer_data)
        flat = torch.stack([ravel(end, problem.ensemble) for end in ends])
        return Hypergradient(grad, outer, worst_norm(pair), state=flat)


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
