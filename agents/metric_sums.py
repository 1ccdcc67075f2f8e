"""Averages of metrics since they were last read, kept on the device."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mbrl_bilevel.nested_state import State, nest, part


class MetricSums:
    """Sums of scalar metrics in float64; of metrics named `largest_...` the largest is kept.

    Reading a metric at every update would wait for the device, so `take` reads all of them at once.
    """

    def __init__(self, group: str) -> None:
        self.group = group
        self.sums: State = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Takes in one value of each metric."""
        for name, value in metrics.items():
            # float64: a thousand updates' sums of float32 would lose the last digits.
            old = self.sums.get(name, torch.zeros((), dtype=torch.float64, device=value.device))
            largest = name.startswith("largest")
            self.sums[name] = torch.maximum(old, value) if largest else old + value
            # Counts are known without looking at the device.
            self.counts[name] = 1 if largest else self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The averages since the last call, as "group/name"."""
        totals = {name: total.item() for name, total in self.sums.items()}
        found = {f"{self.group}/{k}": total / self.counts[k] for k, total in totals.items()}
        self.sums, self.counts = {}, {}
        return found

    def state(self) -> State:
        counts = {k: torch.tensor(v) for k, v in self.counts.items()}
        return nest({"sums": self.sums, "counts": counts})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.sums = part(state, "sums")
        self.counts = {k: int(v) for k, v in part(state, "counts").items()}
