"""Flags of reproduce."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mbrl_bilevel.ranges import Count
from mbrl_bilevel.scripts.flags.shared import Command


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of reproduce."""

    name: Annotated[Literal["dynamics", "published", "uci", "sac"], tyro.conf.Positional]
    """dynamics: every objective on real data at one budget; published: the paper's table at its
    own settings; uci: the usual regression suite (needs --data); sac: learning curves beside those
    of Stable-Baselines3 (needs --out)."""
    data: Path | None = None
    """uci: folder of the suite. dynamics, published: folder of Minari data sets to keep and reuse;
    default: a temporary one."""
    seeds: Count = 3
    """Repetitions, each with its own split and initialisation, from --seed on."""
    steps: Count | None = None
    """dynamics: gradient steps of each run, 4,000 by default; sac: real steps, 50,000 by
    default."""
    envs: tuple[str, ...] = ("Hopper-v5", "HalfCheetah-v5")
    """dynamics: environments whose medium policy collects the data; sac: the first is the task."""
    objectives: tuple[str, ...] = ("mse", "nll", "beta_nll", "pg", "bilevel")
    """dynamics, uci: what to compare. dynamics knows NAME-wide too: the same objective with as many
    parameters as bilevel has by its two means."""
    out: Path | None = None
    """dynamics, sac: folder that keeps every run; the same command goes on where it stopped."""
