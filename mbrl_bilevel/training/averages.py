"""Averages of training metrics over steps, on the device."""

import math

import torch
from torch import Tensor

from mbrl_bilevel.nested_state import State, nest, part

TOGETHER = 256  # steps' metrics that are summed at once: memory stays bounded, steps stay quick


class Averages:
    """Collects a number per step under each name; what is not finite is left out of its average.

    Reading a number at every step would wait for the device; so would asking whether it is finite.
    """

    def __init__(self) -> None:
        self.recent: dict[str, list[Tensor]] = {}
        self.sums: dict[str, Tensor] = {}  # [2, *shape]: of the values, and how many they are

    def add(self, name: str, value: Tensor) -> None:
        values = self.recent.setdefault(name, [])
        values.append(value.detach().clone())
        if len(values) == TOGETHER:
            self._sum(name)

    def take(self) -> dict[str, float]:
        """The averages since this was last called, over entries too; without those of nothing."""
        for name in list(self.recent):
            self._sum(name)
        found = {k: (total / count).mean().item() for k, (total, count) in self.sums.items()}
        self.sums = {}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _sum(self, name: str) -> None:
        values = torch.stack(self.recent.pop(name)).double()
        finite = values.isfinite()
        new = torch.stack([values.where(finite, 0.0).sum(0), finite.double().sum(0)])
        self.sums[name] = self.sums[name] + new if name in self.sums else new

    def state(self) -> State:
        recent = {name: torch.stack(values) for name, values in self.recent.items()}
        return nest({"recent": recent, "sums": self.sums})

    def load_state(self, state: State) -> None:
        self.recent = {name: list(v.unbind()) for name, v in part(state, "recent").items()}
        self.sums = part(state, "sums")
