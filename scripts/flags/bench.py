"""Flags of bench."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mbrl_bilevel.ranges import Count, Threads
from mbrl_bilevel.scripts.flags.shared import Command

Name = Literal[
    "load",
    "fit",
    "rollout",
    "plan",
    "sac",
    "simulate",
    "bilevel",
    "dhmbpo",
    "growth",
    "checkpoint",
    "memory",
]
# memory takes half an hour, growth ten minutes, and rollout has no more than a peer
ALL: tuple[Name, ...] = (
    *("load", "fit", "plan", "sac", "simulate", "bilevel", "dhmbpo", "checkpoint"),
)
COMPARED: tuple[Name, ...] = ("load", "fit", "rollout", "plan", "sac")


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of bench."""

    names: Annotated[tuple[Name, ...], tyro.conf.Positional] = ()
    """Which benchmarks to run; default: all but memory, which takes half an hour, growth (minutes)
    and rollout, which is for --peers; with --peers: load, fit, rollout, plan and sac."""
    peers: bool = False
    """Time other libraries at the same work instead (Minari, mbrl-lib, pytorch-mppi,
    Stable-Baselines3), in an environment of their own, which is made in the cache folder by uv or
    pip when it is first wanted."""
    out: Path | None = None
    """New folder for the table as throughput-bench.csv; that of --peers as throughput-peers.csv."""
    rounds: Count = 7
    """Repetitions of every measurement; medians are reported."""
    threads: Threads | None = None
    """Threads of torch; default: torch's own choice, with --peers 1."""
