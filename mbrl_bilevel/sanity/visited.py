"""A limited model that is fitted where a policy goes in it (theory T12).

The state moves by s' = 1.5 sin s + u + noise, the model by s' = a s + u + noise; the policy is
u = -GAIN s. Rows are of states from everywhere, s of N(0, ROWS), imagined paths begin near rest, s
of N(0, STARTS). The outer level learns the weights w(s) = exp(phi s^2) of the inner rows by the
error of outer rows, weighted by how often the imagined paths come near them.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.implicit import ExactDense
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.objectives.visited import visit_weights
from mbrl_bilevel.sanity.check import Check, check
from mbrl_bilevel.sanity.over_seeds import at_most

GAIN, NOISE = 0.9, 0.2
ROWS, STARTS = 1.0, 0.25  # variances
HORIZON = 10
COUNT, PATHS = 10_000, 200
ROUNDS = 3  # of weights and of what is learned under them; each comes 50 times nearer
STEP = 1e-4  # of finite differences


class Rows(NamedTuple):
    """States, what followed without the action's part, and weights of the outer level."""

    state: Float[Tensor, "b"]
    after: Float[Tensor, "b"]
    weight: Float[Tensor, "b"]


def draw(generator: torch.Generator) -> Rows:
    """Rows of the system, of equal weight."""
    state, noise = torch.randn(2, COUNT, generator=generator, dtype=torch.float64)
    state = math.sqrt(ROWS) * state
    return Rows(state, 1.5 * state.sin() + NOISE * noise, torch.ones_like(state))


def variances(a: float) -> list[float]:
    """Of the model's states under the policy at each step: v' = (a - GAIN)^2 v + NOISE^2."""
    found = [STARTS]
    for _ in range(HORIZON - 1):
        found.append((a - GAIN) ** 2 * found[-1] + NOISE**2)
    return found


def best(seen: list[float], uniform: float = 0.0) -> float:
    """The a of least error where states are of N(0, v), v in `seen` at equal shares; a share of
    `uniform` is of the rows.

    E s sin s = v exp(-v / 2) for s of N(0, v).
    """
    shares = [((1 - uniform) / len(seen), v) for v in seen] + [(uniform, ROWS)]
    return 1.5 * sum(p * v * math.exp(-v / 2) for p, v in shares) / sum(p * v for p, v in shares)


def fixed_point(uniform: float = 0.0) -> float:
    """The a that is best where the policy goes in the model of this very a."""
    a = 0.0
    for _ in range(100):
        a = best(variances(a), uniform)
    return a


def imagined(a: float, generator: torch.Generator) -> Float[Tensor, "v"]:
    """States of paths in the model under the policy."""
    noise = torch.randn(HORIZON, PATHS, generator=generator, dtype=torch.float64)
    states = [math.sqrt(STARTS) * noise[0]]
    for now in noise[1:]:
        states.append((a - GAIN) * states[-1] + NOISE * now)
    return torch.cat(states)


def weighted(rows: Rows, a: float, uniform: float, generator: torch.Generator) -> Rows:
    """The rows with the weights of where the policy goes in the model of `a`."""
    states, seen = (s.view(1, -1, 1) for s in (rows.state, imagined(a, generator)))
    return rows._replace(weight=visit_weights(states, seen, uniform=uniform)[0])


def least_squares(rows: Rows, weight: Float[Tensor, "b"]) -> Float[Tensor, ""]:
    """sum w s s' / sum w s^2."""
    return (weight * rows.state * rows.after).sum() / (weight * rows.state.square()).sum()


def fitted(rows: Rows, phi: Params) -> Params:
    """a*(phi), the inner optimum."""
    w = torch.exp(phi["exponent"] * rows.state.square())
    return {"a": least_squares(rows, w).reshape(1)}


def problem() -> BilevelProblem:
    """Squared error of one step, inside weighted by phi, outside by where the policy goes."""

    def squared(theta: Params, rows: Rows) -> Tensor:
        return (theta["a"] * rows.state - rows.after).square()

    def inner(theta: Params, phi: Params, rows: Rows) -> Tensor:
        w = torch.exp(phi["exponent"] * rows.state.square())
        return (w * squared(theta, rows)).sum() / w.sum().detach()

    def outer(theta: Params, phi: Params, rows: Rows) -> Tensor:
        return (rows.weight * squared(theta, rows)).mean()

    return BilevelProblem(inner, outer)


def learned(
    inner: Rows, outer: Rows, generator: torch.Generator, uniform: float = 0.0
) -> tuple[Params, Rows]:
    """phi at the fixed point of weights and L-BFGS on hypergradients, and the weighted rows."""
    phi: Params = {"exponent": torch.zeros((), dtype=torch.float64)}
    for _ in range(ROUNDS):
        outer = weighted(outer, fitted(inner, phi)["a"].item(), uniform, generator)
        solver = torch.optim.LBFGS(
            list(phi.values()),
            max_iter=50,
            tolerance_grad=1e-12,
            tolerance_change=1e-16,
            line_search_fn="strong_wolfe",
        )

        def closure(outer: Rows = outer) -> Tensor:
            found = ExactDense()(problem(), fitted(inner, phi), phi, inner, outer)
            phi["exponent"].grad = found.grad["exponent"]
            return found.outer_loss

        solver.step(closure)
    return phi, outer


def visited_checks(generator: torch.Generator) -> list[Check]:
    """Fits to all rows and to those where the policy goes, beside their closed forms."""
    inner, outer = draw(generator), draw(generator)
    flat = {"exponent": torch.zeros((), dtype=torch.float64)}
    plain = fitted(inner, flat)
    phi, rows = learned(inner, outer, generator)
    theta, expected = fitted(inner, phi), fixed_point()
    a = theta["a"].item()
    # w(s) leaves of N(0, ROWS) a normal distribution of variance tau.
    tau = 1 / (1 / ROWS - 2 * phi["exponent"].item())
    mixed_phi, _ = learned(inner, outer, generator, uniform=0.1)
    seen = variances(expected)
    spread = imagined(expected, generator).square().mean().item()
    share = rows.weight / rows.weight.sum()
    grad = ExactDense()(problem(), plain, flat, inner, rows).grad["exponent"].item()
    moved = [
        problem().outer(fitted(inner, {"exponent": flat["exponent"] + s}), flat, rows).item()
        for s in (STEP, -STEP)
    ]
    error, beside = (problem().outer(found, flat, rows).item() for found in (theta, plain))
    return [
        check("a by least squares over all rows", plain["a"].item(), best([ROWS]), 0.05),
        check("variance of imagined states", spread, sum(seen) / len(seen), 0.01),
        check("variance of the rows where the policy goes",
              (share * rows.state.square()).sum().item(), sum(seen) / len(seen), 0.01),
        check("a learned where the policy goes", a, expected, 0.05),
        check("a of the weighted outer rows", a, least_squares(rows, rows.weight).item(), 1e-4),
        check("a of a normal distribution of the inner weights' variance",
              1.5 * math.exp(-tau / 2), expected, 0.05),
        check("a learned, a tenth of the weights uniform",
              fitted(inner, mixed_phi)["a"].item(), fixed_point(0.1), 0.05),
        at_most("error where the policy goes, learned weights or none", error, 0.75 * beside),
        check("hypergradient by the weights", grad, (moved[0] - moved[1]) / (2 * STEP), 1e-6),
    ]  # fmt: skip
