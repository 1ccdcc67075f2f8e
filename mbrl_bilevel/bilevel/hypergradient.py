"""What every hypergradient estimator takes and gives."""

import warnings
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.bilevel.linear_solve import LinearSolution, Status
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient, Partials


class ConvergenceWarning(UserWarning):
    """A hypergradient stands on a linear system that was not solved to its tolerance."""


class Hypergradient(NamedTuple):
    """dF/dphi of the bilevel problem, and how far to trust it.

    The error of `grad` is proportional to `inner_gradient_norm` [*e] (theta is not yet theta*) and
    to the linear residual, so log both (`metrics`). `linear` is None for estimators that solve no
    linear system. Hand `state` to the next call to start from here. `fallbacks` counts the members
    whose linear solve was set aside (`Implicit.max_residual`).
    """

    grad: Params
    outer_loss: Float[Tensor, ""]
    inner_gradient_norm: Float[Tensor, "*e"]
    linear: LinearSolution | None = None
    state: Tensor | None = None
    fallbacks: Int[Tensor, ""] | None = None

    def metrics(self) -> dict[str, Tensor]:
        """Scalars to log, still on the device: worst member where there are several.

        All are floating-point numbers, but for the count `linear_fallbacks`.
        """
        worst = {
            "outer_loss": self.outer_loss,
            "hypergradient_norm": torch.stack([g.norm() for g in self.grad.values()]).norm(),
            "inner_gradient_norm": self.inner_gradient_norm.max(),
        }
        if self.linear is not None:
            worst |= {
                "linear_residual": self.linear.relative_residual.max(),
                "linear_iterations": self.linear.iterations.max().float(),
                "linear_status": self.linear.status.max().float(),
            }
        if self.fallbacks is not None:
            worst["linear_fallbacks"] = self.fallbacks
        return worst


@runtime_checkable
class Estimator(Protocol):
    """Estimates dF/dphi at (theta, phi); `state` is that of the previous call, or None.

    All implicit estimators evaluate theory T8, dF/dphi - d2 inner/(dphi dtheta) v with H v =
    dF/dtheta, and differ in H and in how the system is solved.
    """

    def __call__(
        self,
        problem: BilevelProblem,
        theta: Params,
        phi: Params,
        inner_data: Any,
        outer_data: Any,
        state: Float[Tensor, "*e n"] | None = None,
    ) -> Hypergradient:
        """The hypergradient, with the state [*e, n] to start the next call from."""
        ...


def from_linear_solution(
    inner: InnerGradient, outer: Partials, solution: LinearSolution
) -> Hypergradient:
    """dF/dphi = explicit part - d2 inner/(dphi dtheta) v (theory T8); v becomes the state."""
    indirect = inner.cross_product(solution.x)
    grad = {name: explicit - indirect[name] for name, explicit in outer.phi.items()}
    return Hypergradient(grad, outer.loss, inner.norm, solution, solution.x)


def warn_unless_converged(solution: LinearSolution) -> None:
    """A `ConvergenceWarning` with the worst residual where a system was not solved; one sync."""
    if bool((solution.status == int(Status.CONVERGED)).all()):
        return
    found = {Status(int(code)).name.lower() for code in solution.status.unique()}
    residual = solution.relative_residual.max().item()
    warnings.warn(
        f"hypergradient: linear solve ended with {', '.join(sorted(found))} after "
        f"{int(solution.iterations.max())} iterations at a relative residual of {residual:.1e}; "
        "allow more iterations, add damping, use Gauss-Newton products or train the inner level "
        "further",
        ConvergenceWarning,
        stacklevel=3,
    )
