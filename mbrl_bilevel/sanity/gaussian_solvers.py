"""Every hypergradient and every bilevel loop on the Gaussian toy: each must find U* (theory T4)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.hypergradient import Estimator
from mbrl_bilevel.bilevel.implicit import ExactDense, Implicit
from mbrl_bilevel.bilevel.linear_solve import Neumann
from mbrl_bilevel.bilevel.loops import DoubleLoop, FirstOrderLoop, SingleLoop
from mbrl_bilevel.bilevel.minimise import minimise
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.soba import Soba
from mbrl_bilevel.bilevel.unrolled import Unrolled
from mbrl_bilevel.bilevel.value_gap import ValueGap
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis
from mbrl_bilevel.sanity.check import Check, check
from mbrl_bilevel.sanity.gaussian import (
    LAM,
    Data,
    Mean,
    N,
    optimal_precision,
    outer_variables,
    precision,
    problem,
    start,
)

Loop = SingleLoop | DoubleLoop | FirstOrderLoop

ESTIMATORS: dict[str, Estimator] = {
    "exact_dense": ExactDense(),
    "implicit, conjugate gradients": Implicit(),
    "implicit, Neumann series": Implicit(method=Neumann(), max_iterations=300),
    "implicit, Gauss-Newton": Implicit(curvature=GaussNewton()),
    "unrolled": Unrolled(steps=60, step_size=0.3),
    "value_gap": ValueGap(),
}


def first_objective(**options: object) -> PolicyGradient:
    """J under a full Mahalanobis reward that starts away from the answer, U = I / 2."""
    reward = Mahalanobis(N, form="full", initial=torch.tensor(0.5, dtype=torch.float64))
    return PolicyGradient(reward, lam=LAM, **options)  # type: ignore[arg-type]


def error_of(phi: Params, mean: Mean = "linear") -> float:
    """|U - U*| / |U*| in Frobenius norm."""
    right = optimal_precision(mean)
    return ((precision(phi) - right).norm() / right.norm()).item()


def solve_by(
    estimator: Estimator,
    objective: PolicyGradient,
    inner: Data,
    outer: Data,
    mean: Mean = "linear",
) -> Params:
    """L-BFGS on phi by `estimator`'s hypergradients, each at an inner level solved to the end."""
    toy, phi = problem(objective), outer_variables(objective)
    theta = start(mean, "full")
    solver = torch.optim.LBFGS(
        list(phi.values()), max_iter=25, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        nonlocal theta
        theta = minimise(lambda t: toy.inner_loss(t, phi, inner), theta)
        found = estimator(toy, theta, phi, inner, outer)
        for name, p in phi.items():
            p.grad = found.grad[name]
        return found.outer_loss

    solver.step(closure)
    return phi


def estimator_checks(inner: Data, outer: Data) -> list[Check]:
    """Every hypergradient, exact inner objective; one also with a mean that ignores x."""
    checks = []
    for name, estimator in ESTIMATORS.items():
        phi = solve_by(estimator, first_objective(), inner, outer)
        checks.append(check(f"U by {name}: relative error", error_of(phi), 0.0, 0.01))
    phi = solve_by(ExactDense(), first_objective(), inner, outer, "constant")
    name = "U of a constant mean by exact_dense: relative error"
    checks.append(check(name, error_of(phi, "constant"), 0.0, 0.01))
    return checks


def sampled_checks(inner: Data, outer: Data, generator: torch.Generator) -> list[Check]:
    """Sampled inner objectives: pathwise with frozen noise, score function with fresh noise."""
    x, y = inner
    objective = first_objective(estimator="reparameterized", samples=64)
    noise = torch.randn(64, *y.shape, generator=generator, dtype=y.dtype)
    phi = solve_by(ExactDense(), objective, (x, y, noise), outer)
    checks = [check("U from pathwise samples: relative error", error_of(phi), 0.0, 0.05)]
    objective = first_objective(estimator="score_function", samples=16)

    def batch() -> Data:
        fresh = torch.randn(16, *y.shape, generator=generator, dtype=y.dtype)
        return x, y, fresh

    loop = loops(objective, inner)["single loop (SOBA)"]
    phi = follow(loop, batch, outer, steps=600)
    checks.append(check("U from score-function samples: relative error", error_of(phi), 0.0, 0.05))
    return checks


def loops(objective: PolicyGradient, inner: Data) -> dict[str, Loop]:
    """The loops, Adam at both levels, from the exact inner optimum of the first phi."""
    toy, phi = problem(objective), outer_variables(objective)
    exact = problem(first_objective())
    theta = minimise(lambda t: exact.inner_loss(t, phi, inner[:2]), start("linear", "full"))
    steps: dict[str, Any] = {
        "inner_optimizer": partial(torch.optim.Adam, lr=0.03),
        "outer_optimizer": partial(torch.optim.Adam, lr=0.01),
    }
    return {
        "single loop (SOBA)": SingleLoop(Soba(toy, damping=0.1), theta, phi, **steps),
        "single loop (MA-SOBA)": SingleLoop(
            Soba(toy, damping=0.1, averaging=0.3), theta, phi, **steps
        ),
        "first-order single loop": FirstOrderLoop(toy, theta, phi, **steps),
        "double loop (AmIGO)": DoubleLoop(
            toy, Implicit(max_iterations=10, warn=False), theta, phi, inner_steps=5, **steps
        ),
    }


def follow(loop: Loop, batch: Callable[[], Data], outer: Data, steps: int) -> Params:
    """phi after `steps` outer steps, averaged over the last quarter of them."""
    tail = steps // 4
    average = {name: torch.zeros_like(p) for name, p in loop.phi.items()}
    for k in range(steps):
        if isinstance(loop, DoubleLoop):
            loop.step(batch, outer)
        else:
            loop.step(batch(), outer)
        if k >= steps - tail:
            average = {name: average[name] + p.detach() / tail for name, p in loop.phi.items()}
    return average


def loop_checks(inner: Data, outer: Data, steps: int = 300) -> list[Check]:
    """Every loop on the exact inner objective, full batch."""
    return [
        check(
            f"U by {name}: relative error",
            error_of(follow(loop, lambda: inner, outer, steps)),
            0.0,
            0.01,
        )
        for name, loop in loops(first_objective(), inner).items()
    ]
