"""`sweep`: the product of settings as trials on Ray, on this machine or on a cluster."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from shlex import join, quote
from typing import Any
from uuid import uuid4

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.command import Outcome, say
from mbrl_bilevel.scripts.flags.sweep import Config
from mbrl_bilevel.scripts.sweeps.checks import checked_steps
from mbrl_bilevel.scripts.sweeps.cluster import connected, require_ray
from mbrl_bilevel.scripts.sweeps.folder import TABLE, SweepFolder
from mbrl_bilevel.scripts.sweeps.live_table import LiveTable
from mbrl_bilevel.scripts.sweeps.run_trial import Order
from mbrl_bilevel.scripts.sweeps.schedule import Runs, Schedule, run_all
from mbrl_bilevel.scripts.sweeps.sweep_file import read_stages
from mbrl_bilevel.scripts.sweeps.trial import Trial, trials_of
from mbrl_bilevel.training.folder_lock import FolderLock
from mbrl_bilevel.training.interruption import sigterm_interrupts

# Variables that say where data sets and figures are made; nodes of a cluster take them over.
CARRIED = ("MINARI_DATASETS_PATH", "XDG_CACHE_HOME", "MUJOCO_GL", "HF_ENDPOINT", "HF_HUB_OFFLINE")


class SweepStopped(KeyboardInterrupt):
    """A signal ended the sweep; finished trials are kept."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def run(config: Config) -> Outcome:
    """Runs every trial that is not finished.

    Raises:
        InputError: a file, a trial, a folder or a cluster that is not right, before any trial runs.
        SweepStopped: after Ctrl-C or SIGTERM.
    """
    trials = _trials(config)
    steps = checked_steps(trials)
    if config.dry_run:
        return _listed(trials)
    if config.out is None:
        raise InputError("name the folder of the sweep by --out, on a path that all nodes share")
    folder = SweepFolder(config.out.absolute())
    definition = {
        "cpus_per_trial": config.cpus_per_trial,
        "trials": {trial.name: trial.words for trial in trials},
    }
    folder.refuse_another_sweep(definition)
    require_ray()
    schedule = Schedule(trials)
    for trial in trials:
        if folder.found(trial.name) is not None:
            schedule.set(trial.name, "finished")
    kept = schedule.count("finished")
    if not schedule.over:
        _run(config, folder, definition, schedule, steps)
    return _outcome(folder, schedule, kept)


def _trials(config: Config) -> list[Trial]:
    if config.device == "cuda" and not config.gpus_per_trial:
        raise InputError("--device cuda: say how many GPUs a trial reserves by --gpus-per-trial")
    if config.device == "cpu" and config.gpus_per_trial:
        raise InputError(
            f"--gpus-per-trial {config.gpus_per_trial:g} of --device cpu: leave one of them out"
        )
    return trials_of(read_stages(config.file, config.set), config.seed)


def _listed(trials: list[Trial]) -> Outcome:
    found = {trial.name: trial.words for trial in trials}
    rows = [f"{name}\n  {join(words)}" for name, words in found.items()]
    return Outcome({"trials": found}, "\n".join([*rows, f"{len(found)} trials, none run"]))


def _run(
    config: Config,
    folder: SweepFolder,
    definition: dict[str, Any],
    schedule: Schedule,
    steps: dict[str, int | None],
) -> None:
    """Connects, and runs what is not finished; the table of results grows with it."""
    where = config.address or "this machine"
    say(f"{schedule.count('waiting')} of {len(schedule.trials)} trials to run, on {where}")
    cpus, gpus = config.cpus_per_trial, config.gpus_per_trial
    with connected(config.address, cpus, gpus) as cluster, _alone_in(folder, definition):
        say(f"sweep: {folder.path}   watch it: tensorboard --logdir {quote(str(folder.run('')))}")
        table = LiveTable(folder, schedule, steps)
        try:
            with sigterm_interrupts():  # once more: ray takes SIGTERM for itself
                run_all(
                    schedule,
                    cluster,
                    lambda trial: _order(config, folder, trial),
                    concurrent=config.concurrent,
                    on_change=lambda: _write(folder, schedule),
                    on_tick=table.show,
                )
        except KeyboardInterrupt as stop:
            _stop(cluster, folder, schedule, stop)
        table.show()


@contextmanager
def _alone_in(folder: SweepFolder, definition: dict[str, Any]) -> Iterator[None]:
    """Makes the folder and locks it: two sweeps would run the same trials."""
    folder.make(definition)
    lock = FolderLock(folder.path)
    try:
        yield
    finally:
        lock.release()


def _write(folder: SweepFolder, schedule: Schedule) -> None:
    folder.write_table(schedule.trials)


def _stop(cluster: Runs, folder: SweepFolder, schedule: Schedule, stop: KeyboardInterrupt) -> None:
    """Lets trials write their checkpoints, and raises what the command line says."""
    say("stopping: trials write their checkpoints; Ctrl-C again stops at once")
    cluster.stop()
    finished = len(folder.write_table(schedule.trials))
    raise SweepStopped(
        f"interrupted; {finished} of {len(schedule.trials)} trials are finished "
        f"({folder.path / TABLE}), the same command goes on with the others",
        getattr(stop, "exit_code", 130),
    ) from None


def _order(config: Config, folder: SweepFolder, trial: Trial) -> Order:
    """A trial's command line, with where it computes, reads its model and writes."""
    words = list(trial.words)
    words += ["--device", "cuda" if config.gpus_per_trial else "cpu"]
    if trial.follows is not None:
        words += ["--model", str(folder.run(trial.follows))]
    if trial.command != "eval-model":
        words += ["--out", str(folder.run(trial.name))]
    if trial.command == "train-agent":
        words += ["--threads", str(config.cpus_per_trial)]
    if trial.command == "eval-agent":  # episodes in processes of one thread each
        words += ["--workers", str(config.cpus_per_trial)]
    if config.plugin:
        words += ["--plugin", *config.plugin]
    return Order(
        name=trial.name,
        words=words,
        run=folder.run(trial.name),
        trains=trial.trains,
        out=folder.path,
        cpus=config.cpus_per_trial,
        submission=uuid4().hex,
        directory=os.getcwd(),
        environment={name: os.environ[name] for name in CARRIED if name in os.environ},
    )


def _outcome(folder: SweepFolder, schedule: Schedule, kept: int) -> Outcome:
    rows = folder.write_table(schedule.trials)
    ended = {name: one for name, one in schedule.standings.items() if one.state != "finished"}
    failed = {name: one.sentence for name, one in ended.items()}
    text = [f"{len(rows)} of {len(schedule.trials)} trials finished, {kept} of them before"]
    text += [f"{one.state}: {name}: {one.sentence}" for name, one in ended.items()]
    if failed:
        text.append("the same command tries them again, once what made them fail is mended")
    text.append(f"results: {folder.path / TABLE}")
    found = {
        "trials": rows,
        "failed": failed,
        "table": str(folder.path / TABLE),
        "out": str(folder.path),
    }
    return Outcome(found, "\n".join(text), exit_code=1 if failed else 0)
