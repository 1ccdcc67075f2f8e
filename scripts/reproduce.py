"""`reproduce`: the tables of RESULTS.md, each by one command."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mbrl_bilevel.scripts.command import Command, Outcome


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of reproduce."""

    name: Annotated[Literal["dynamics", "published", "uci"], tyro.conf.Positional]
    """dynamics: every objective on real data at one budget; published: the paper's table at its
    own settings; uci: the usual regression suite (needs --data)."""
    data: Path | None = None
    """uci: folder of the suite. dynamics, published: folder of Minari data sets to keep and reuse;
    default: a temporary one."""
    seeds: int = 3
    """Repetitions, each with its own split and initialisation, from --seed on."""
    steps: int = 4_000
    """dynamics: gradient steps of each run."""
    envs: tuple[str, ...] = ("Hopper-v5", "HalfCheetah-v5")
    """dynamics: environments whose medium policy collects the data."""
    objectives: tuple[str, ...] = ("mse", "nll", "beta_nll", "pg", "bilevel")
    """dynamics, uci: what to compare. dynamics knows NAME-wide too: the same objective with as many
    parameters as bilevel has by its two means."""
    out: Path | None = None
    """dynamics: folder that keeps every run; the same command continues what was interrupted."""


def run(config: Config) -> Outcome:
    module = importlib.import_module(f"mbrl_bilevel.scripts.reproduce_{config.name}")
    outcome: Outcome = module.reproduce(config)
    return outcome
