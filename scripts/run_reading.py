"""Runs as they are found in their folders: finished, still running, interrupted or damaged."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from mbrl_bilevel.files import parse_json, read_json, read_yaml
from mbrl_bilevel.scripts.model_results import EVALUATION
from mbrl_bilevel.training.folder_lock import LOCK, is_locked
from mbrl_bilevel.training.run_folder import CONFIG, METRICS, SUMMARY

State = Literal["finished", "running", "interrupted", "without results", "damaged"]
Kind = Literal["agents", "models", "evaluations"]
SECOND = "dynamics.csv"  # of `reproduce dynamics`, two folders above its runs


@dataclass(frozen=True)
class Acting:
    """What eval-agent found of one agent.

    name: what acts. settings: of the evaluation, and those of the run whose model or policy it is.
    seed: that of the episodes' starts; `returns` by episode. run, agent, objective, data: the run's
    folder, its agent where the policy acts, the objective of its model, what it learned from.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    returns: Mapping[int, float] = field(default_factory=dict)
    run: Path | None = None
    agent: str | None = None
    objective: str | None = None
    data: str | None = None

    @property
    def mean(self) -> float:
        """Mean return of the episodes."""
        return mean(self.returns.values())


@dataclass(frozen=True)
class Run:
    """What the folder of a train-agent or train-model holds, each part only if it can be read.

    With `acting` it is an evaluation by eval-agent: the configuration is that of the run whose
    model or policy acts, the summary what was found of this agent.
    """

    folder: Path
    state: State
    config: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[Mapping[str, Any]] = ()
    """Of metrics.jsonl, each with an integer `step`."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    """Of eval-model."""
    second: Mapping[str, Any] = field(default_factory=dict)
    """The row of `reproduce dynamics`: metrics on a second data set."""
    remarks: tuple[str, ...] = ()
    """What could not be read."""
    acting: Acting | None = None

    @property
    def kind(self) -> Kind:
        if self.acting is not None:
            return "evaluations"
        return "agents" if "agent" in self.config else "models"

    @property
    def name(self) -> str:
        """The agent, or the objective of a model."""
        if self.acting is not None:
            return self.acting.name
        return str(self.config.get("agent" if self.kind == "agents" else "objective"))

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def last_step(self) -> int:
        """The last one of which there are metrics."""
        return max((line["step"] for line in self.lines), default=0)


def is_run(folder: Path) -> bool:
    """Whether a training wrote to the folder; the results of eval-agent are no run."""
    if (folder / METRICS).is_file():
        return True
    return (folder / CONFIG).is_file() and (folder / LOCK).is_file()


def read_run(folder: Path) -> Run:
    """Reads what there is; nothing that is damaged or missing raises an error."""
    remarks: list[str] = []
    config = mapping_in(folder / CONFIG, read_yaml, remarks)
    if not config:
        remarks = remarks or [f"{CONFIG} is missing"]
    elif not isinstance(config.get("agent", config.get("objective")), str):
        remarks.append(f"{CONFIG} names neither an agent nor an objective")
    elif type(config.get("seed")) is not int:
        remarks.append(f"{CONFIG} names no seed")
    if remarks:
        return Run(folder, "damaged", remarks=tuple(remarks))
    lines = _lines(folder / METRICS, remarks)
    summary = mapping_in(folder / SUMMARY, read_json, remarks)
    evaluation = mapping_in(folder / EVALUATION, read_json, remarks)
    second = _second(folder, remarks)
    state: State = "finished" if summary else "running" if is_locked(folder) else "interrupted"
    if not summary and not lines:
        state = "without results"
    return Run(folder, state, config, lines, summary, evaluation, second, tuple(remarks))


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def mapping_in(path: Path, read: Any, remarks: list[str]) -> dict[str, Any]:
    """That of a file; empty where there is none, or nothing else, which is remarked."""
    if not path.is_file():
        return {}
    try:
        found = read(path)
    except (OSError, ValueError) as error:
        remarks.append(f"{path.name} is damaged ({error})")
        return {}
    if not isinstance(found, dict) or not found:
        remarks.append(f"{path.name} is damaged: it holds no mapping")
        return {}
    return found


def _lines(path: Path, remarks: list[str]) -> list[dict[str, Any]]:
    """Lines up to the first that is damaged; one without its end is still being written."""
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = []
    with open(path, errors="replace") as file:
        for place, line in enumerate(file, start=1):
            try:
                values = parse_json(line)
                if type(values["step"]) is not int:
                    raise ValueError("its step is no number")
            except (ValueError, TypeError, KeyError):
                if line.endswith("\n"):
                    remarks.append(f"{path.name} is damaged from line {place} on")
                break
            found.append(values)
    return found


def _second(folder: Path, remarks: list[str]) -> dict[str, Any]:
    """Numbers of the run's row in dynamics.csv."""
    path = folder.parent.parent / SECOND
    if not path.is_file():
        return {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                name = f"{row['objective']}-{row['seed']}"
                if (row["environment"], name) == (folder.parent.name, folder.name):
                    texts = ("environment", "objective")
                    return {key: float(v) for key, v in row.items() if v and key not in texts}
    except (OSError, ValueError, KeyError, TypeError) as error:
        remarks.append(f"{path} is damaged ({type(error).__name__} {error})")
    return {}
