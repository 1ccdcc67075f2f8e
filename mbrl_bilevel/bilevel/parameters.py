"""Parameters as a dictionary of tensors, and the same numbers as one flat vector per system."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

Params = dict[str, Tensor]


def ravel(parameters: Params, ensemble: bool = False) -> Float[Tensor, "*e n"]:
    """All numbers of `parameters` in one vector [n], or [E, n] with a leading member axis.

    A scalar parameter (or one number per member, [E]) takes one place like any other.
    """
    kept = 1 if ensemble else 0
    return torch.cat([p.reshape(*p.shape[:kept], -1) for p in parameters.values()], -1)


def unravel(vector: Float[Tensor, "*e n"], like: Params) -> Params:
    """The inverse of `ravel`: `vector` cut into the names and shapes of `like`."""
    members = vector.shape[:-1].numel()
    pieces = vector.split([p.numel() // members for p in like.values()], -1)
    return {
        name: piece.reshape(p.shape) for (name, p), piece in zip(like.items(), pieces, strict=True)
    }


def leaves(parameters: Params) -> Params:
    """The same numbers as fresh leaves that require gradients; the originals stay untouched."""
    return {name: p.detach().requires_grad_() for name, p in parameters.items()}


def gradients(value: Float[Tensor, ""], parameters: Params, create_graph: bool = False) -> Params:
    """Gradient of a scalar, zero where it does not depend on a parameter."""
    if not value.requires_grad:
        return {name: torch.zeros_like(p) for name, p in parameters.items()}
    grads = torch.autograd.grad(
        value,
        list(parameters.values()),
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(parameters, grads, strict=True))


def pull_back(
    outputs: Iterable[Tensor], weights: Iterable[Tensor], parameters: Params
) -> tuple[Tensor, ...]:
    """d(sum of weights * outputs)/d(parameters) through a graph that is kept for the next call."""
    pairs = [(o, w) for o, w in zip(outputs, weights, strict=True) if o.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(p) for p in parameters.values())
    return torch.autograd.grad(
        [o for o, _ in pairs],
        list(parameters.values()),
        grad_outputs=[w for _, w in pairs],
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
