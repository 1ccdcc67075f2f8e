"""Flags of train-model: those of the objective that is named, and no others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.settings import OBJECTIVES, NLLSettings, OuterSettings
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.ranges import Count, Range
from mbrl_bilevel.scripts.flags.group import group_of
from mbrl_bilevel.scripts.flags.objective import (
    objective_group,
    objective_of,
    objective_settings,
)
from mbrl_bilevel.scripts.flags.parse import built, parse_groups
from mbrl_bilevel.scripts.flags.shared import Computing
from mbrl_bilevel.training.settings import FitSettings

SUMMARY = (
    "Train a dynamics model on a Minari data set. `--objective NAME --help` shows the flags of an "
    "objective."
)


@dataclass(frozen=True, kw_only=True)
class RunFlags(Computing):
    """The run folder, and how the run is computed."""

    out: Path
    """Run folder: config, metrics, TensorBoard events, checkpoint and model."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint."""
    checkpoint_seconds: Annotated[float, Range(0, math.inf)] = 20.0
    """Seconds between checkpoints, of which the two newest are kept; 0: at every evaluation."""
    cold_restart: bool = False
    """Of objectives with an outer level: also train a fresh model under what that has learned, now
    frozen, and report both. A model that followed it may have memorised the data of the outer
    level."""


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """The data set and its environment."""

    dataset: str
    """Minari id, or the folder of a Minari data set."""
    download: bool = False
    """Download the data set if it is not on this machine."""
    cache: bool = True
    """Read a large data set from its HDF5 file; by default its tensors are kept in
    ~/.cache/mbrl-bilevel, where it loads at once the next time."""
    env: str | None = None
    """Environment that the data set must come from (checked), e.g. HalfCheetah-v5;
    my_module:MyCart-v0 imports the module that registers it."""
    max_transitions: Count | None = None
    """Use about this many transitions: whole episodes, drawn by --seed."""
    unchecked_task: bool = False
    """Train even if rewards or terminations of the data differ from the task's."""


@dataclass(frozen=True, kw_only=True)
class ModelFlags(ModelSettings):
    """The ensemble."""

    learn_reward: Literal["auto", "yes", "no"] = "auto"
    """Predict the reward too; auto: if the task's reward function is unknown."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A run of train-model."""

    run: RunFlags
    data: DataFlags
    model: ModelFlags = ModelFlags()
    objective: ObjectiveSpec = NLLSettings()
    fit: FitSettings = FitSettings()

    def __post_init__(self) -> None:
        if self.run.cold_restart and not isinstance(self.objective, OuterSettings):
            raise InputError(
                f"--cold-restart of --objective {OBJECTIVES.name(self.objective)}: it has no outer "
                "level; choose separate, two_means, residual_reward or bilevel"
            )


def parse(argv: Sequence[str]) -> Config:
    """The settings of a command line.

    Raises:
        InputError: a flag that the objective does not have, or a value out of range. SystemExit:
            after help, and for what tyro cannot read.
    """
    objective = objective_of(argv, NLLSettings())
    groups = {
        "run": group_of(RunFlags),
        "data": group_of(DataFlags),
        "model": group_of(ModelFlags()),
        "objective": objective_group(objective),
        "fit": group_of(FitSettings()),
    }
    given = parse_groups(groups, argv, "train-model", SUMMARY)
    return Config(
        run=built(RunFlags, given["run"]),
        data=built(DataFlags, given["data"]),
        model=built(ModelFlags, given["model"]),
        objective=objective_settings(objective, given["objective"]),
        fit=built(FitSettings, given["fit"]),
    )
