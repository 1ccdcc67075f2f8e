"""Flags of bench."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from mbrl_bilevel.ranges import Count, Threads
from mbrl_bilevel.scripts.flags.shared import Command

Name = Literal["load", "fit", "plan", "sac", "checkpoint", "memory"]
# memory takes half an hour
ALL: tuple[Name, ...] = ("load", "fit", "plan", "sac", "checkpoint")


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of bench."""

    names: Annotated[tuple[Name, ...], tyro.conf.Positional] = ALL
    """Which benchmarks to run; default: all but memory, which takes half an hour."""
    rounds: Count = 7
    """Repetitions of every measurement; medians are reported."""
    threads: Threads | None = None
    """Threads of torch; default: torch's own choice."""
