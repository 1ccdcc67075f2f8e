"""Run folders in the folders that a command line names."""

import os
from collections.abc import Sequence
from pathlib import Path

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.evaluation_reading import (
    evaluations_in,
    is_evaluation,
    read_evaluation,
    without_copies,
)
from mbrl_bilevel.scripts.flag_checks import refuse_twice
from mbrl_bilevel.scripts.run_reading import Run, is_run, read_run


def find_runs(name: str, folders: Sequence[Path]) -> list[Run]:
    """Every run in the folders, which are runs or contain some, in the order of their paths.

    A model that an agent trained belongs to the agent's run; it is none of its own. What eval-agent
    wrote, below runs or by itself, is there once for each agent that it evaluated.

    Raises:
        InputError: a folder, given by the argument `name`, that does not exist or holds no run, a
            run that is named itself and has no results, or a run that is found twice.
    """
    paths: list[Path] = []
    found: list[Run] = []
    for folder in folders:
        runs = _runs_in(name, folder)
        read = [run for path in runs for run in _read(path)]
        if runs[0] == folder:
            _require_results(name, read[0])
        paths += runs
        found += read
    refuse_twice(name, [path.resolve() for path in paths])
    return without_copies(found)


def _read(path: Path) -> list[Run]:
    return read_evaluation(path) if is_evaluation(path) else [read_run(path)]


def _runs_in(name: str, folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{name} {folder}: no such folder; name run folders, or one that has some")
    runs = []
    for path, below, _ in os.walk(folder):
        if is_evaluation(Path(path)) or is_run(Path(path)):
            below.clear()
            runs += [Path(path), *evaluations_in(Path(path))]
    if not runs:
        raise InputError(
            f"{name} {folder} holds no run of train-model or train-agent, and no results of "
            "eval-agent: name such folders, or one that contains some"
        )
    return sorted(runs)


def _require_results(name: str, run: Run) -> None:
    if run.state == "damaged":
        raise InputError(
            f"{name} {run.folder} cannot be read ({'; '.join(run.remarks)}): leave it out"
        )
    if run.state == "without results":
        raise InputError(
            f"{name} {run.folder} has no results yet: wait for its first evaluation, or leave it "
            "out"
        )
