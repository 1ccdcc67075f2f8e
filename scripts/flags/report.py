"""Flags of report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mbrl_bilevel.ranges import NotNegative
from mbrl_bilevel.scripts.flags.shared import Command


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of report."""

    run: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of train-agent or train-model, results of eval-agent, or folders that contain
    some, as those of sweep, reproduce agents and reproduce dynamics."""
    out: Path
    """New or empty folder: report.html, report.md, and a csv file for every table."""
    against: tuple[Path, ...] = ()
    """Run folders to compare RUN with, all of the same task: the probability that a run of RUN is
    better."""
    reference: str | None = None
    """Objective whose models the evaluated ones of other objectives are compared with, paired by
    seed; default: nll, if any are of it."""
    margin: NotNegative = 0.05
    """Share of the reference's mean return below which a difference does not matter."""
    published: Path | None = None
    """Folder of published curves to draw behind those of agents: TASK.csv with the columns method,
    seed, real_steps and return."""
