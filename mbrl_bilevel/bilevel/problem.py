"""A bilevel problem, and the second-order products of its inner level."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.linear_solve import norm
from mbrl_bilevel.bilevel.parameters import Params, gradients, leaves, pull_back, ravel, unravel
from mbrl_bilevel.errors import InputError

Loss = Callable[[Params, Params, Any], Tensor]


class BilevelProblem(NamedTuple):
    """min over phi of outer(theta*(phi), phi), theta*(phi) = argmin of inner(., phi) (theory T1).

    `inner(theta, phi, inner_data)` is the negative of J, a scalar; with `ensemble` it is one loss
    per member, [E], each of which depends on its own member theta[name][e] alone. `outer(theta,
    phi, outer_data)` is a scalar, and may mix the members. Inner and outer data are always separate
    arguments; noise of sampled losses is part of the data, so that it is frozen within one solve. A
    model's parameters are `dict(network.named_parameters())`, used by `torch.func.functional_call`.

    `outputs(theta, data)`, [b, k] or [E, b, k], and `output_loss(outputs, phi, data)` split the
    inner loss at the network's outputs; only Gauss-Newton products need them (see
    `BilevelProblem.of_outputs`). `output_metric(outputs, phi, data)`, [*e, b, k, k], stands for the
    Hessian by the outputs, where one is known that is never negative (see `GaussNewton.metric`).
    """

    inner: Loss
    outer: Loss
    ensemble: bool = False
    outputs: Callable[[Params, Any], Tensor] | None = None
    output_loss: Callable[[Tensor, Params, Any], Tensor] | None = None
    output_metric: Callable[[Tensor, Params, Any], Tensor] | None = None

    @classmethod
    def of_outputs(
        cls,
        outputs: Callable[[Params, Any], Tensor],
        output_loss: Callable[[Tensor, Params, Any], Tensor],
        outer: Loss,
        ensemble: bool = False,
    ) -> "BilevelProblem":
        """The problem whose inner loss is a sum over samples of a function of the outputs."""

        def inner(theta: Params, phi: Params, data: Any) -> Tensor:
            return output_loss(outputs(theta, data), phi, data)

        return cls(inner, outer, ensemble, outputs, output_loss)

    def inner_loss(self, theta: Params, phi: Params, data: Any) -> Float[Tensor, ""]:
        """Sum of the members' inner losses: its gradient holds every member's gradient.

        Raises:
            InputError: the inner loss has not one entry per member, or is no scalar without
            members.
        """
        loss = self.inner(theta, phi, data)
        expected = next(iter(theta.values())).shape[:1] if self.ensemble else torch.Size([])
        if loss.shape != expected:
            kind = "one entry per member" if self.ensemble else "a scalar"
            raise InputError(
                f"the inner loss has shape {list(loss.shape)}, not {list(expected)}: return {kind} "
                "or change `ensemble`"
            )
        return loss.sum()

    def outer_gradients(self, theta: Params, phi: Params, data: Any) -> "Partials":
        """The outer loss and its partial derivatives.

        Raises:
            InputError: the outer loss is no scalar.
        """
        return partials(lambda t, p: self.outer(t, p, data), theta, phi, self.ensemble)


class Partials(NamedTuple):
    """A loss, its gradient by theta (a vector per member) and by phi, the other held fixed."""

    loss: Float[Tensor, ""]
    theta: Float[Tensor, "*e n"]
    phi: Params


def partials(
    loss: Callable[[Params, Params], Tensor], theta: Params, phi: Params, ensemble: bool
) -> Partials:
    """Both partial derivatives of a scalar loss by one backward pass.

    Raises:
        InputError: the loss is no scalar.
    """
    theta, phi = leaves(theta), leaves(phi)
    with torch.enable_grad():
        value = loss(theta, phi)
        if value.shape != ():
            raise InputError(
                f"the outer loss has shape {list(value.shape)}: return a scalar, such as the mean"
            )
        named = {f"theta.{k}": p for k, p in theta.items()}
        both = gradients(value, named | {f"phi.{k}": p for k, p in phi.items()})
    by_theta = ravel({k: both[f"theta.{k}"] for k in theta}, ensemble)
    return Partials(value.detach(), by_theta, {k: both[f"phi.{k}"] for k in phi})


class InnerGradient:
    """The inner gradient at (theta, phi) with its graph kept for second-order products.

    The graph is built once; a product is then one backward pass through it (double backward), about
    2.5 gradients of time, and the Hessian is never formed.
    """

    def __init__(self, problem: BilevelProblem, theta: Params, phi: Params, data: Any) -> None:
        self.theta, self.phi, self.data = leaves(theta), leaves(phi), data
        with torch.enable_grad():
            loss = problem.inner_loss(self.theta, self.phi, data)
            self._gradient = gradients(loss, self.theta, create_graph=True)
        self.gradient = {name: g.detach() for name, g in self._gradient.items()}
        self.norm: Float[Tensor, "*e"] = norm(ravel(self.gradient, problem.ensemble))
        self._ensemble = problem.ensemble

    def hessian_product(self, v: Float[Tensor, "*e n"]) -> Float[Tensor, "*e n"]:
        """d2 inner / dtheta2 @ v, of every member at once."""
        return ravel(dict(zip(self.theta, self._pull(v, self.theta), strict=True)), self._ensemble)

    def cross_product(self, v: Float[Tensor, "*e n"]) -> Params:
        """d2 inner / dphi dtheta @ v, summed over members."""
        return dict(zip(self.phi, self._pull(v, self.phi), strict=True))

    def _pull(self, v: Tensor, wrt: Params) -> tuple[Tensor, ...]:
        weights = unravel(v, self.theta)
        return pull_back(self._gradient.values(), weights.values(), wrt)
