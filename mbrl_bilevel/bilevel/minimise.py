"""Minimising an inner level to the end, where a stochastic optimiser would leave a gradient."""

from collections.abc import Callable

import torch
from torch import Tensor

from mbrl_bilevel.bilevel.parameters import Params, leaves


def minimise(
    loss: Callable[[Params], Tensor],
    start: Params,
    *,
    iterations: int = 500,
    tolerance: float = 1e-9,
) -> Params:
    """Full-batch L-BFGS (strong Wolfe line search) until no gradient entry exceeds `tolerance`.

    First derivatives only. All members move on one clock; `loss` is the sum of theirs. The result
    is detached.
    """
    theta = leaves({name: p.clone() for name, p in start.items()})
    optimizer = torch.optim.LBFGS(
        list(theta.values()),
        max_iter=iterations,
        max_eval=4 * iterations,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = loss(theta)
        value.backward()
        return value

    optimizer.step(closure)
    return {name: p.detach() for name, p in theta.items()}
