"""A limited model whose best parameter depends on how far it looks ahead (theory T10).

The state moves by s' = 1.5 sin s + noise, the model by s' = a s: no a is right, and the best one
for a path of two steps is not that of one step. The inner level fits a by weighted least squares to
steps from everywhere; the outer level learns the weights w(s) = exp(phi s^2) on other paths.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.implicit import ExactDense
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.sanity.check import Check, check
from mbrl_bilevel.sanity.over_seeds import at_most

NOISE = 0.1
WIDEST, STARTS = 3.0, 1.0  # inner steps begin anywhere in (-3, 3), outer paths in (-1, 1)
COUNT = 5_000
STEP = 1e-4  # of finite differences


class Path(NamedTuple):
    """States and what follows them after one step and after two."""

    start: Float[Tensor, "b"]
    one: Float[Tensor, "b"]
    two: Float[Tensor, "b"]


def draw(widest: float, generator: torch.Generator, count: int = COUNT) -> Path:
    """Paths from starts uniform in (-widest, widest)."""

    def moved(state: Tensor) -> Tensor:
        noise = torch.randn(count, generator=generator, dtype=torch.float64)
        return 1.5 * state.sin() + NOISE * noise

    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    start = widest * (2 * uniform - 1)
    one = moved(start)
    return Path(start, one, moved(one))


def fitted(paths: Path, phi: Params) -> Params:
    """a*(phi) = sum w s s' / sum w s^2, the inner optimum."""
    w = torch.exp(phi["exponent"] * paths.start.square())
    a = (w * paths.start * paths.one).sum() / (w * paths.start.square()).sum()
    return {"a": a.reshape(1)}


def problem(steps: int) -> BilevelProblem:
    """Weighted squared error of one step inside, mean squared error of a path outside."""

    def inner(theta: Params, phi: Params, data: Path) -> Tensor:
        w = torch.exp(phi["exponent"] * data.start.square())
        return (w * (theta["a"] * data.start - data.one).square()).sum() / w.sum().detach()

    def outer(theta: Params, phi: Params, data: Path) -> Tensor:
        after = [theta["a"] * data.start, theta["a"].square() * data.start]
        errors = [
            (found - true).square().mean() for found, true in zip(after, data[1:], strict=True)
        ]
        return torch.stack(errors[:steps]).mean()

    return BilevelProblem(inner, outer)


def learned(inner: Path, outer: Path, steps: int) -> Params:
    """a under the weights that are learned by L-BFGS on hypergradients."""
    phi = {"exponent": torch.zeros((), dtype=torch.float64)}
    solver = torch.optim.LBFGS(
        list(phi.values()), max_iter=50, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        found = ExactDense()(problem(steps), fitted(inner, phi), phi, inner, outer)
        phi["exponent"].grad = found.grad["exponent"]
        return found.outer_loss

    solver.step(closure)
    return fitted(inner, phi)


def best(paths: Path, steps: int) -> float:
    """The a of least error over one step or two, from moments.

    Over two steps the error is (E(s' - a s)^2 + E(s'' - a^2 s)^2) / 2, whose derivative by a is
    2 M a^3 + (M - 2 C_2) a - C_1 with M = E s^2, C_1 = E s s' and C_2 = E s s''.
    """
    M, c1, c2 = ((paths.start * other).mean().item() for other in paths)
    if steps == 1:
        return c1 / M
    # The only positive root, by Newton's method from above it.
    a = 3.0
    for _ in range(50):
        a -= (2 * M * a**3 + (M - 2 * c2) * a - c1) / (6 * M * a**2 + M - 2 * c2)
    return a


def horizon_checks(generator: torch.Generator) -> list[Check]:
    """One step and two, as fitted to all rows, as learned and as found from moments."""
    inner, outer = draw(WIDEST, generator), draw(STARTS, generator)
    flat = {"exponent": torch.zeros((), dtype=torch.float64)}
    unweighted = fitted(inner, flat)
    # 1.5 E s sin s / E s^2 for s uniform in (-c, c); the standard error is about .01.
    c = WIDEST
    plain = 1.5 * (math.sin(c) - c * math.cos(c)) / c / (c**2 / 3)
    one, two = learned(inner, outer, 1), learned(inner, outer, 2)
    beside, error = (problem(2).outer(theta, flat, outer).item() for theta in (one, two))
    at_best = {"a": torch.tensor([best(outer, 2)], dtype=torch.float64)}
    least = problem(2).outer(at_best, flat, outer).item()
    grad = ExactDense()(problem(2), unweighted, flat, inner, outer).grad["exponent"].item()
    moved = [
        problem(2).outer(fitted(inner, {"exponent": flat["exponent"] + s}), flat, outer).item()
        for s in (STEP, -STEP)
    ]
    difference = (moved[0] - moved[1]) / (2 * STEP)
    return [
        check("a by least squares over all steps", unweighted["a"].item(), plain, 0.05),
        check("a learned by the error of one step", one["a"].item(), best(outer, 1), 1e-4),
        check("a learned by the error of two steps", two["a"].item(), best(outer, 2), 1e-4),
        check("error of two steps, learned weights", error, least, 1e-7),
        at_most("error of two steps, learned by two or by one", error, 0.95 * beside),
        check("hypergradient by the weights, two steps", grad, difference, 1e-6),
    ]
