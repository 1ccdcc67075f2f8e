"""A sweep's folder: what it is of, the results of its trials, and the table of them.

sweep.yaml              every trial as a command line
trials/NAME/            a run folder, or that of an evaluation
results/NAME.json       what a finished trial found; only finished trials have one
starts/NAME.jsonl       a line whenever a process begins with a trial, or goes on with it
logs/NAME.log           what the command said
results.csv             a row for each finished trial
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import make_folders, read_json, read_yaml, remove_folders, write_text
from mbrl_bilevel.scripts.csv_table import write_csv
from mbrl_bilevel.scripts.sweeps.headlines import headlines
from mbrl_bilevel.scripts.sweeps.trial import Trial
from mbrl_bilevel.training.folder_lock import LOCK

SWEEP, TABLE = "sweep.yaml", "results.csv"
FOLDERS = ("trials", "results", "starts", "logs")


@dataclass(frozen=True)
class SweepFolder:
    """The paths of a sweep, of which `path` is absolute."""

    path: Path

    def run(self, name: str) -> Path:
        """The run folder of a training, or the folder of an evaluation."""
        return self.path / "trials" / name

    def result(self, name: str) -> Path:
        """What a finished trial found, as JSON."""
        return self.path / "results" / f"{name}.json"

    def starts(self, name: str) -> Path:
        """A line for each process that began or continued a trial."""
        return self.path / "starts" / f"{name}.jsonl"

    def log(self, name: str) -> Path:
        """What a trial's command wrote to its terminal."""
        return self.path / "logs" / f"{name}.log"

    def refuse_another_sweep(self, definition: Mapping[str, Any]) -> None:
        """Refuses a folder unless it is new or holds this sweep, or one that this one extends.

        Raises:
            InputError: something else is there, or a trial has changed or is no longer named.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out {self.path} is a file; choose a folder")
        if not (self.path / SWEEP).is_file():
            if self.path.is_dir() and any(p.name != LOCK for p in self.path.iterdir()):
                raise InputError(
                    f"--out {self.path} holds no sweep and is not empty: choose a new folder"
                )
            remove_folders(self._made())  # that it can be written is known, before Ray is started
            return
        earlier = self._earlier()
        for name, words in earlier["trials"].items():
            now = definition["trials"].get(name)
            if now != words:
                begun = f"trial {name} was `{shlex.join(words)}`"
                now = "is no longer in it" if now is None else f"is `{shlex.join(now)}` now"
                raise InputError(
                    f"--out {self.path} holds another sweep, {begun} and {now}: give the same "
                    "(values may be added to an axis), or choose another --out"
                )
        cpus = earlier["cpus_per_trial"]
        if cpus != definition["cpus_per_trial"]:
            raise InputError(
                f"--cpus-per-trial is {definition['cpus_per_trial']} and was {cpus} when the sweep "
                f"in {self.path} began, which may change last digits: give the same, or choose "
                "another --out"
            )

    def _earlier(self) -> dict[str, Any]:
        try:
            found = read_yaml(self.path / SWEEP)
            if not isinstance(found["cpus_per_trial"], int):
                raise ValueError("cpus_per_trial is no number")
            for words in found["trials"].values():
                shlex.join(words)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{self.path / SWEEP} is damaged ({error}): choose another --out"
            ) from None
        return dict(found)

    def make(self, definition: Mapping[str, Any]) -> None:
        """Writes what the sweep is of.

        Raises:
            InputError: the folder cannot be written.
        """
        try:
            for folder in FOLDERS:
                make_folders(self.path / folder)
            write_text(self.path / SWEEP, yaml.safe_dump(dict(definition), sort_keys=False))
        except OSError as error:
            raise self._unwritable(error) from None

    def _made(self) -> list[Path]:
        try:
            return make_folders(self.path)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> InputError:
        why = error.strerror or error
        return InputError(f"--out {self.path} cannot be written ({why}); choose another folder")

    def found(self, name: str) -> dict[str, Any] | None:
        """What a finished trial found; None where it is not finished."""
        path = self.result(name)
        if not path.is_file():
            return None
        try:
            found = read_json(path)
            if not isinstance(found["results"], dict):
                raise ValueError("it holds no results")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path} is damaged ({error}): remove it, and the trial goes on"
            ) from None
        return dict(found)

    def write_table(self, trials: Sequence[Trial]) -> list[dict[str, Any]]:
        """A row for each finished trial, in the order of the sweep, by rename; returns the rows."""
        rows = []
        for trial in trials:
            found = self.found(trial.name)
            if found is not None:
                metrics = headlines(trial.command, found["results"])
                head = {"trial": trial.name, "command": trial.command, **trial.columns}
                tail = {"starts": found["starts"], "run": str(self.run(trial.name))}
                rows.append(head | metrics | tail)
        write_csv(rows, self.path / TABLE, _columns(trials, rows))
        return rows


def _columns(trials: Sequence[Trial], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same from the first row to the last, settings before metrics."""
    settings = dict.fromkeys(name for trial in trials for name in trial.columns)
    metrics = dict.fromkeys(name for trial in trials for name in headlines(trial.command, {}))
    return ["trial", "command", *settings, *metrics, "starts", "run"]


def last_lines(path: Path, size: int = 8192) -> list[dict[str, Any]]:
    """The whole lines at the end of a file of JSON lines; none where there is no such file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            raw = file.read().split(b"\n")
    except OSError:
        return []
    found = []
    for line in raw:
        try:
            one = json.loads(line)
        except ValueError:  # cut at either end
            continue
        if isinstance(one, dict):
            found.append(one)
    return found
