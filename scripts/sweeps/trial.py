"""A trial: one command with its flags, as it stands in a sweep."""

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import flag
from mbrl_bilevel.scripts.sweeps.grid import Point, points
from mbrl_bilevel.scripts.sweeps.sweep_file import Stage, normalised
from mbrl_bilevel.scripts.sweeps.switches import switches

TRAININGS, EVALUATIONS = ("train-model", "train-agent"), ("eval-model", "eval-agent")
COMMANDS = (*TRAININGS, *EVALUATIONS)
INHERITED = ("dataset", "seed")  # by a training that follows another, unless it names its own
# Keys that are no setting of a trial, and what decides them.
ELSEWHERE = {
    "out": "--out",
    "resume": "the sweep, which resumes what it finds",
    "json": "--json",
    "help": "no sweep",
    "help_all": "no sweep",
    "plugin": "--plugin",
    "device": "--device and --gpus-per-trial",
    "threads": "--cpus-per-trial",
    "workers": "--cpus-per-trial",
}
LONGEST_NAME = 180  # of a folder; file systems allow 255 bytes


@dataclass(frozen=True)
class Trial:
    """One command.

    flags: by name, as text. columns: what the trial is, for its row of the results: flags, with
    those of the runs that it follows. follows: the trial whose run folder is its --model.
    """

    name: str
    command: str
    flags: Mapping[str, str]
    columns: Mapping[str, str] = field(default_factory=dict)
    follows: str | None = None

    @property
    def trains(self) -> bool:
        """Whether it has a run folder of its own, with checkpoints."""
        return self.command in TRAININGS

    @property
    def words(self) -> list[str]:
        """The command line, without where the trial is computed and where it writes."""
        on_or_off = switches(self.command)
        words = [self.command]
        for name, value in self.flags.items():
            if name in on_or_off:
                words += _switch(name, value, on_or_off[name])
            else:
                words += [flag(name), *_split(name, value)]
        return words


def _switch(name: str, value: str, default: bool) -> list[str]:
    if value.lower() not in ("true", "false"):
        raise InputError(f"{name} {value}: choose true or false")
    on = value.lower() == "true"
    if on == default:
        return []
    return [flag(name) if on else f"--no-{flag(name).removeprefix('--')}"]


def _split(name: str, value: str) -> list[str]:
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise InputError(f"{name} {value}: {error}; quotes come in pairs") from None
    if any(word.startswith("--") for word in words):
        raise InputError(f"{name} {value}: a value holds no flag; give each its key")
    return words


def trials_of(stages: Sequence[Stage], seed: int) -> list[Trial]:
    """All trials of a sweep, each after what it follows; `seed` is of those that name none.

    Raises:
        InputError: a stage without a known command, a key that the sweep decides, or two trials of
            one name.
    """
    found = list(_expand(stages, None, str(seed)))
    for name, times in Counter(trial.name for trial in found).items():
        if times > 1:
            raise InputError(f"{times} trials are {name}: leave out values that are there twice")
    return found


def _expand(stages: Sequence[Any], before: Trial | None, seed: str) -> Iterator[Trial]:
    seen: Counter[str] = Counter()
    for raw in stages:
        stage, command = _checked(raw, before)
        seen[command] += 1
        label = command if seen[command] == 1 else f"{command}-{seen[command]}"
        single = before is None and len(stages) == 1
        for point in points({k: v for k, v in stage.items() if k != "command"}):
            trial = _trial(command, None if single else label, point, before, seed)
            yield trial
            yield from _expand(point.then, trial, seed)


def _checked(raw: Any, before: Trial | None) -> tuple[Stage, str]:
    """A stage and its command."""
    if not isinstance(raw, dict):
        raise InputError(f"then: {raw!r} is no stage: give a mapping, with command: and flags")
    stage = normalised(raw)
    command = stage.get("command")
    if not isinstance(command, str) or command not in COMMANDS:
        given = "no command is given" if command is None else f"command: {command}"
        raise InputError(f"{given}: choose one of {', '.join(COMMANDS)}")
    if before is not None and not before.trains:
        raise InputError(f"then: {command} follows {before.command}, which leaves no run: drop it")
    if before is not None and command == "train-model":
        raise InputError("then: train-model learns from no run: give it as a stage of its own")
    return stage, command


def _trial(command: str, label: str | None, point: Point, before: Trial | None, seed: str) -> Trial:
    flags = point.flags
    for key in flags.keys() & ELSEWHERE.keys():
        raise InputError(f"{key} is no key of a sweep, {ELSEWHERE[key]} decides it: leave it out")
    if before is not None and "model" in flags:
        raise InputError(
            f"model {flags['model']}: of {command} below `then` it is the run that it follows: "
            "leave it out"
        )
    # Columns of a stage that follows are told from those of its run by the command.
    prefix = "" if before is None else f"{command}."
    columns = {} if before is None else dict(before.columns)
    columns |= {f"{prefix}{name}": value for name, value in flags.items()}
    if command in TRAININGS:
        given = {} if before is None else {k: v for k, v in before.flags.items() if k in INHERITED}
        flags = {"seed": seed} | given | flags
        columns |= {"seed": flags["seed"]} if before is None else {}
    parts = [f"{key}={_slug(value)}" for key, value in point.axes.items()]
    parts = [*([before.name] if before else []), *([label] if label else []), *parts]
    name = _short(",".join(parts) or command)
    return Trial(name, command, flags, columns, before.name if before else None)


def _slug(value: str) -> str:
    """A value as part of a folder's name."""
    return re.sub(r"[^\w.+-]+", "-", value.strip("./ "), flags=re.ASCII) or "-"


def _short(name: str) -> str:
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
