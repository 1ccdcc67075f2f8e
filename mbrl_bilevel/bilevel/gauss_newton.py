"""Gauss-Newton products: curvature that is never negative."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.linear_solve import Matvec, dense
from mbrl_bilevel.bilevel.parameters import Params, leaves, pull_back, ravel, unravel
from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.errors import InputError


@dataclass(frozen=True)
class GaussNewton:
    """J^T H J in place of the inner Hessian: J the Jacobian of the outputs, H >= 0 per sample.

    H is the Hessian of the inner loss by the outputs with its negative eigenvalues set to zero
    (Schraudolph 2002). Equal to the inner Hessian where every sample is fitted (a realizable
    optimum), close to it elsewhere. `metric(outputs, phi, data)`, [*e, b, k, k], replaces H, for
    example by lam times the Fisher information of the predictive distribution over the batch size,
    which needs no second derivative of a sampled reward and is the same matrix at a realizable
    optimum. Terms of the inner loss that do not pass through the outputs (weight decay w/2
    |theta|^2) enter as `damping=w` of the solve.
    """

    metric: Callable[[Tensor, Params, Any], Tensor] | None = None

    def products(self, problem: BilevelProblem, theta: Params, phi: Params, data: Any) -> Matvec:
        """v -> J^T H J v of every member at once, on graphs that are built here, once.

        Raises:
            InputError: the problem does not name its outputs.
        """
        if problem.outputs is None or problem.output_loss is None:
            raise InputError(
                "Gauss-Newton products need the network's outputs: build the problem by "
                "BilevelProblem.of_outputs"
            )
        theta = leaves(theta)
        with torch.enable_grad():
            outputs = problem.outputs(theta, data)
            # J^T w is linear in w and its derivative by w is J: forward mode by two backwards.
            w = torch.zeros_like(outputs, requires_grad=True)
            pulled = torch.autograd.grad(
                outputs, list(theta.values()), w, create_graph=True, materialize_grads=True
            )
        if self.metric is None:
            hessian = _output_hessian(problem.output_loss, outputs.detach(), phi, data)
        else:
            hessian = self.metric(outputs.detach(), phi, data)

        def product(v: Float[Tensor, "*e n"]) -> Float[Tensor, "*e n"]:
            (forward,) = pull_back(pulled, unravel(v, theta).values(), {"w": w})
            weighted = (hessian @ forward.unsqueeze(-1)).squeeze(-1)
            back = pull_back([outputs], [weighted], theta)
            return ravel(dict(zip(theta, back, strict=True)), problem.ensemble)

        return product


def _output_hessian(
    output_loss: Callable[[Tensor, Params, Any], Tensor],
    outputs: Float[Tensor, "*e b k"],
    phi: Params,
    data: Any,
) -> Float[Tensor, "*e b k k"]:
    """The k x k Hessian block of every sample (k backward passes), its negative part removed."""
    outputs = outputs.requires_grad_()
    with torch.enable_grad():
        loss = output_loss(outputs, phi, data).sum()
        (grad,) = torch.autograd.grad(loss, outputs, create_graph=True)
    hessian = dense(lambda v: pull_back([grad], [v], {"y": outputs})[0], outputs)
    values, vectors = torch.linalg.eigh(0.5 * (hessian + hessian.mT))
    return (vectors * values.clamp_min(0.0).unsqueeze(-2)) @ vectors.mT
