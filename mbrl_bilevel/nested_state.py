"""States of parts as one flat dictionary of tensors, as checkpoints hold it, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]


def nest(parts: Mapping[str, Mapping[str, Tensor]]) -> State:
    """One dictionary of all parts, whose keys begin with "part/"."""
    return {f"{name}/{k}": v for name, state in parts.items() for k, v in state.items()}


def part(state: Mapping[str, Tensor], name: str) -> State:
    """The part that `nest` put under `name`; empty where there is none."""
    prefix = f"{name}/"
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def moments(optimizer: torch.optim.Optimizer) -> State:
    """What an optimiser remembers of each parameter, by the parameter's number."""
    return nest({str(i): optimizer.state[p] for i, p in enumerate(_parameters(optimizer))})


def load_moments(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Goes on from `moments`; parameters that it does not hold stay as they are."""
    for i, p in enumerate(_parameters(optimizer)):
        if found := part(state, str(i)):
            optimizer.state[p] = {k: v.clone() for k, v in found.items()}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
