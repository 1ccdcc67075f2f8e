"""`reproduce`: the tables of RESULTS.md, each by one command."""

import importlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import Count, flag
from mbrl_bilevel.scripts.command import Command, Outcome
from mbrl_bilevel.scripts.flags import refuse_twice


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


# Flags of each name beside --seed, --device and --json.
TAKES = {
    "dynamics": {"data", "seeds", "steps", "envs", "objectives", "out"},
    "published": {"data", "seeds"},
    "uci": {"data", "objectives"},
    "sac": {"seeds", "steps", "envs", "out"},
}
OWN = frozenset[str]().union(*TAKES.values())


def run(config: Config) -> Outcome:
    """Raises InputError for flags that the reproduction does not take, or lists that are bad."""
    _check(config)
    module = importlib.import_module(f"mbrl_bilevel.scripts.reproduce_{config.name}")
    outcome: Outcome = module.reproduce(config)
    return outcome


def _check(config: Config) -> None:
    for field in fields(config):
        changed = getattr(config, field.name) != field.default
        if changed and field.name in OWN - TAKES[config.name]:
            raise InputError(
                f"{flag(field.name)} is no flag of reproduce {config.name}: leave it out"
            )
    for name in ("envs", "objectives"):
        if not getattr(config, name):
            raise InputError(f"--{name}: name at least one")
        refuse_twice(f"--{name}", getattr(config, name))
