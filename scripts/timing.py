"""Timing for `bench`: candidates take turns, so that a machine that drifts drifts for all."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median

import torch


def take_turns(
    candidates: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of every candidate's calls, one call of each in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(warm_up + rounds):
        for name, call in candidates.items():
            started = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def median_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Median of a / b, round by round."""
    return median(x / y for x, y in zip(a, b, strict=True))


def layer_products(
    members: int, rows: int, sizes: Sequence[int], device: torch.device, *, backward: bool
) -> tuple[Callable[[], None], float]:
    """The bare matrix products of a network's pass (and their operations), nothing around them.

    Forward: one product a layer; backward: one for every weight and one for every input but the
    network's own. The rate that the machine reaches on these is the limit of any implementation.
    """
    products, operations = [], 0.0
    for index, (i, j) in enumerate(pairwise(sizes)):
        x = torch.randn(members, rows, i, device=device)
        weight = torch.randn(members, i, j, device=device)
        gradient = torch.randn(members, rows, j, device=device)
        pairs = [(x, weight)]
        if backward:
            pairs.append((x.mT, gradient))
            if index > 0:
                pairs.append((gradient, weight.mT))
        operations += len(pairs) * 2.0 * members * rows * i * j
        products += pairs

    def run() -> None:
        for a, b in products:
            torch.bmm(a, b)

    return run, operations
