"""Flags of sweep."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mbrl_bilevel.ranges import Count, Range
from mbrl_bilevel.scripts.flags.shared import Command


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of sweep; --seed is that of trials that name none."""

    file: Annotated[Path | None, tyro.conf.Positional] = None
    """YAML file of the sweep: a command and its flags as keys, a list for each axis of the
    product."""
    set: tuple[str, ...] = ()
    """Keys in place of, or beside, those of the file: KEY=VALUE, KEY=VALUE,VALUE,... for an
    axis."""
    out: Path | None = None
    """Folder of the sweep, on a path that all nodes share: trials/NAME is each run's folder,
    results.csv has a row for each finished trial. The same command continues."""
    address: str | None = None
    """HOST:PORT of the head of a Ray cluster that runs, or auto for the one of this machine;
    default: Ray is started here and ends with the sweep."""
    cpus_per_trial: Count = 1
    """CPUs that a trial reserves, and its threads of torch."""
    gpus_per_trial: Annotated[float, Range(0, math.inf)] = 0.0
    """GPUs that a trial reserves; a part of one (0.25) is shared. Above 0 trials compute on
    CUDA, else on the CPU."""
    concurrent: Count | None = None
    """Trials at a time; default: as many as the CPUs and GPUs of all nodes hold."""
    dry_run: bool = False
    """Check the sweep and print the command of each trial; nothing runs or is written."""
