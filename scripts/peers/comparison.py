"""Ours and a peer at the same work, in turn, and the row that comes of it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from mbrl_bilevel.products import (
    Precision,
    choose_products,
    multiplies_bf16,
    plain_products,
    products_in_use,
)
from mbrl_bilevel.scripts.timing import median_ratio

COLUMNS = (
    "benchmark",
    "peer",
    "products",
    "ours_ms",
    "peer_ms",
    "ratio",
    "lowest_ratio",
    "highest_ratio",
    "limit_ms",
    "per",
)
NAMES = {"ieee": "torch's", "bf16": "oneDNN"}


def precisions_here() -> tuple[Precision, ...]:
    """Those of `--precision` that this CPU has."""
    return ("float32", "bf16") if multiplies_bf16() else ("float32",)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The same work by both, and what bounds any implementation of it."""

    name: str
    peer: str
    """The module in this folder that its process runs."""
    packages: str
    """Whose the peer is, for people."""
    spec: Mapping[str, Any]
    """What the peer's process is told: sizes, seed, folder."""
    ours: Callable[[], object]
    limit: Callable[[], object]
    """The bare matrix products of the same sizes, or the bare reading of the file."""
    per: str
    """What the milliseconds are of."""
    precision: Precision = "float32"
    """How ours and the limit multiply; peers multiply as torch comes."""
    count: int = 1
    """How many of those one round does."""


@dataclass(frozen=True)
class Row:
    """Medians over rounds, in milliseconds; ratios are peer / ours, round by round."""

    benchmark: str
    peer: str
    products: str
    ours_ms: float
    peer_ms: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float
    limit_ms: float
    per: str

    def cells(self) -> dict[str, str]:
        """As text, by column."""
        found = {name: getattr(self, name) for name in COLUMNS}
        return {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in found.items()}


def alternate(
    candidates: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds that every candidate tells of itself, one call of each in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(warm_up + rounds):
        for name, call in candidates.items():
            told = call()
            if i >= warm_up:
                seconds[name].append(told)
    return seconds


def compare(
    work: Comparison, peer: Callable[[], float], version: str, rounds: int, warm_up: int = 1
) -> Row:
    """Times ours, the peer and the limit in turn; `peer` runs a round and tells its seconds."""
    choose_products(work.precision, torch.device("cpu"))
    try:
        how = "bf16" if work.precision == "bf16" else NAMES[products_in_use()]
        candidates = {"ours": _timed(work.ours), "peer": peer, "limit": _timed(work.limit)}
        seconds = alternate(candidates, rounds, warm_up)
    finally:
        plain_products()
    ratios = [p / o for p, o in zip(seconds["peer"], seconds["ours"], strict=True)]
    milliseconds = {k: 1e3 * median(v) / work.count for k, v in seconds.items()}
    return Row(
        benchmark=work.name,
        peer=f"{work.packages} {version}",
        products=how,
        ours_ms=milliseconds["ours"],
        peer_ms=milliseconds["peer"],
        ratio=median_ratio(seconds["peer"], seconds["ours"]),
        lowest_ratio=min(ratios),
        highest_ratio=max(ratios),
        limit_ms=milliseconds["limit"],
        per=work.per,
    )


def table(rows: Sequence[Row], machine: str) -> str:
    """All rows below each other, and the machine."""
    head = ["benchmark", "peer", "ours ms", "peer ms", "ratio (lowest to highest)", "limit ms"]
    lines = [[*head, "products", "of"]]
    for row in rows:
        cell = row.cells()
        ratio = f"{row.ratio:.2f} ({row.lowest_ratio:.2f} to {row.highest_ratio:.2f})"
        times = [cell["ours_ms"], cell["peer_ms"], ratio, cell["limit_ms"]]
        lines.append([row.benchmark, row.peer, *times, row.products, row.per])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    note = "ratio: peer / ours, median of the rounds; limit: bare products or reads of those sizes"
    return "\n".join([*text, note, machine])


def _timed(call: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    return run
