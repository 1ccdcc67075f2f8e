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

    name: Annotated[Literal["dynamics", "agents", "published", "uci", "sac"], tyro.conf.Positional]
    """dynamics: every objective on real data at one budget; agents: learning curves of any agents
    on any tasks, beside published ones (needs --out); published: the paper's table at its own
    settings; uci: the usual regression suite (needs --data); sac: learning curves beside those
    of Stable-Baselines3 (needs --out)."""
    data: Path | None = None
    """uci: folder of the suite. dynamics, published, agents: folder of Minari data sets to keep and
    reuse; default: a temporary one, for agents OUT/datasets."""
    seeds: Count = 3
    """Repetitions, each with its own split and initialisation, from --seed on."""
    steps: Count | None = None
    """dynamics: gradient steps of each run, 4,000 by default; sac: real steps, 50,000 by default;
    agents: steps of the training; default: the agent's own."""
    envs: tuple[str, ...] = ("Hopper-v5", "HalfCheetah-v5")
    """dynamics: environments whose medium policy collects the data; agents: the tasks; sac: the
    first is the task."""
    agents: tuple[str, ...] = ("dhmbpo",)
    """agents: which to train, each with its defaults and its preset for the task."""
    objectives: tuple[str, ...] | None = None
    """dynamics, uci: what to compare; default: mse nll beta_nll pg bilevel. agents: objectives of
    the model, whose noise is then a function of the input for all; default: the agent's own
    settings. dynamics knows NAME-wide too: the same objective with as many
    parameters as bilevel has by its two means."""
    out: Path | None = None
    """dynamics, sac, agents: folder that keeps every run; the same command goes on where it
    stopped."""
    published: Path | None = None
    """agents: folder of published curves, TASK.csv with the columns method, seed, real_steps and
    return, to draw behind one's own."""

    @property
    def compared(self) -> tuple[str, ...]:
        """Objectives of dynamics and uci."""
        return (
            ("mse", "nll", "beta_nll", "pg", "bilevel")
            if self.objectives is None
            else self.objectives
        )
