"""Flags of reproduce."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.ranges import Count
from mbrl_bilevel.scripts.flags.shared import Command


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of reproduce."""

    name: Annotated[
        Literal["dynamics", "mixtures", "agents", "published", "uci", "sac"], tyro.conf.Positional
    ]
    """dynamics: every objective on real data at equal parameters and steps; mixtures: a model that
    can have several modes, trained by likelihood and by rewards; agents: learning curves of any
    agents on any tasks, beside published ones (needs --out); published: the paper's table at its
    own settings; uci: the UCI regression data sets (needs --data); sac: learning curves of SAC here
    and in Stable-Baselines3 (needs --out)."""
    data: Path | None = None
    """uci: folder of the data sets. dynamics, mixtures, published, agents: folder in which Minari
    data sets are kept and reused; default: a temporary one, for agents OUT/datasets."""
    seeds: Count | None = None
    """Number of repetitions, with seeds --seed, --seed + 1, ...; default: 3, of dynamics 5."""
    steps: Count | None = None
    """dynamics, mixtures: gradient steps of each run, default: 4,000 and 2,000; sac: environment
    steps, default: 50,000; agents: steps of the training, default: the agent's own."""
    envs: tuple[str, ...] = ("Hopper-v5", "HalfCheetah-v5")
    """dynamics: environments whose medium policy, or random actions where none is shipped, collects
    the data; agents: the tasks; sac: the first is the task."""
    agents: tuple[str, ...] = ("dhmbpo",)
    """agents: agents to train, each with its defaults and its preset for the task."""
    objectives: tuple[str, ...] | None = None
    """dynamics, uci: objectives to compare, default: mse nll beta_nll pg two_means, of dynamics all
    but pg and residual_reward. agents: those of the model, all with noise as a function of the
    input; default: the agent's own settings. dynamics trains networks of equal numbers of
    parameters, and takes NAME-wide for twice as many."""
    out: Path | None = None
    """dynamics, mixtures, sac, agents: folder of the runs; the same command continues where it
    stopped."""
    published: Path | None = None
    """agents: folder of published curves to draw behind the own ones: TASK.csv with the columns
    method, seed, real_steps and return."""

    @property
    def compared(self) -> tuple[str, ...]:
        """Objectives of dynamics and uci."""
        if self.objectives is not None:
            return self.objectives
        if self.name == "dynamics":
            left_out = "pg", "residual_reward"
            return tuple(name for name in OBJECTIVES.names if name not in left_out)
        return "mse", "nll", "beta_nll", "pg", "two_means"

    @property
    def repetitions(self) -> int:
        """How many seeds."""
        return self.seeds or (5 if self.name == "dynamics" else 3)
