"""Flags of train-model: those of the objective that is named, and no others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.settings import OBJECTIVES, BilevelSettings, NLLSettings, ObjectiveSpec
from mbrl_bilevel.ranges import Count, Range
from mbrl_bilevel.scripts.flags.objective import (
    objective_group,
    objective_of,
    objective_settings,
)
from mbrl_bilevel.scripts.flags.parse import parse_groups
from mbrl_bilevel.scripts.flags.shared import Command
from mbrl_bilevel.training.settings import FitSettings

SUMMARY = (
    "Trains a dynamics model from a Minari data set; `--objective NAME --help` shows the flags of "
    "an objective."
)


@dataclass(frozen=True, kw_only=True)
class RunFlags(Command):
    """The run folder, and how the run is computed."""

    out: Path
    """Run folder: config, metrics, TensorBoard events, checkpoint and model."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint."""
    checkpoint_seconds: Annotated[float, Range(0, math.inf)] = 20.0
    """Seconds between checkpoints, of which the two newest are kept; 0: at every evaluation."""
    cold_restart: bool = False
    """After bilevel, train a fresh model under the reward that was learned, then frozen, and report
    both: a model that followed the reward through its changes may remember what it was learned
    on."""


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """The data set and its environment."""

    dataset: str
    """Minari id, or the folder of a Minari data set."""
    download: bool = False
    """Fetch the data set by its id where it is not on this machine."""
    env: str | None = None
    """Environment that the data set must come from (checked), e.g. HalfCheetah-v5; with a module
    that registers it, as in my_module:MyCart-v0, its task is known."""
    max_transitions: Count | None = None
    """Use only about so many transitions, whole episodes drawn by the seed."""
    unchecked_task: bool = False
    """Go on where rewards or terminations of the data are not those of the task."""


@dataclass(frozen=True, kw_only=True)
class ModelFlags(ModelSettings):
    """The ensemble."""

    learn_reward: Literal["auto", "yes", "no"] = "auto"
    """Predict the reward too; auto: where the task's reward function is unknown."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A run of train-model."""

    run: RunFlags
    data: DataFlags
    model: ModelFlags = ModelFlags()
    objective: ObjectiveSpec = NLLSettings()
    fit: FitSettings = FitSettings()

    def __post_init__(self) -> None:
        if self.run.cold_restart and not isinstance(self.objective, BilevelSettings):
            raise InputError(
                f"--cold-restart of --objective {OBJECTIVES.name(self.objective)}: only bilevel "
                "learns a reward"
            )


def parse(argv: Sequence[str]) -> Config:
    """The settings of a command line.

    Raises:
        InputError: a flag that the objective does not have, or a value out of range. SystemExit:
            after help, and for what tyro cannot read.
    """
    objective = objective_of(argv, NLLSettings())
    groups = {
        "run": RunFlags,
        "data": DataFlags,
        "model": ModelFlags(),
        "objective": objective_group(objective),
        "fit": FitSettings(),
    }
    found = parse_groups(groups, argv, "train-model", SUMMARY)
    return Config(**found | {"objective": objective_settings(objective, found["objective"])})
