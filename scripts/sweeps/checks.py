"""Every trial's command line, parsed before anything runs."""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from mbrl_bilevel.data.dataset_folder import dataset_folder
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.main import parsed
from mbrl_bilevel.scripts.sweeps.trial import Trial


def checked_steps(trials: Sequence[Trial]) -> dict[str, int | None]:
    """The steps of each trial by its name, None of evaluations.

    Trials that differ by their seed alone are parsed once, as parsing takes a tenth of a second,
    and each seed once.

    Raises:
        InputError: the first command line that its command refuses, or a data set that is not here.
    """
    configs: dict[tuple[str, ...], Any] = {}
    seeds: set[str] = set()
    steps = {}
    for trial in trials:
        seed = trial.flags.get("seed", "0")
        key = tuple(Trial(trial.name, trial.command, _without_seed(trial)).words)
        if key not in configs or seed not in seeds:
            configs[key] = _parsed(trial)
            seeds.add(seed)
        steps[trial.name] = _steps(configs[key])
    return steps


def _without_seed(trial: Trial) -> Mapping[str, str]:
    return {name: value for name, value in trial.flags.items() if name != "seed"}


def _parsed(trial: Trial) -> Any:
    command, *words = trial.words
    words += ["--out", "run"] if trial.trains else []
    words += ["--model", "run"] if trial.follows is not None else []
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            config = parsed(command, words)
    except SystemExit:  # tyro's own, which has printed a box
        raise InputError(
            f"trial {trial.name}: {_sentence(said.getvalue())} `mbrl-bilevel {command} --help` "
            "lists the flags"
        ) from None
    except InputError as error:
        raise InputError(f"trial {trial.name}: {error}") from None
    _check_data(trial, config)
    _check_single(trial, config)
    return config


def _check_data(trial: Trial, config: Any) -> None:
    data = getattr(config, "data", config)
    name = getattr(data, "dataset", None)
    if name is None or getattr(data, "download", False):
        return
    try:
        dataset_folder(name)
    except InputError as error:
        raise InputError(f"trial {trial.name}: {error}") from None


def _check_single(trial: Trial, config: Any) -> None:
    """A trial has one result."""
    values = {"model": getattr(config, "models", ()), "planner": getattr(config, "planners", ())}
    if trial.command == "eval-model":
        values["model"] = config.model
    for name, several in values.items():
        if len(several) > 1:
            raise InputError(
                f"trial {trial.name}: {name} {' '.join(map(str, several))} are {len(several)} of "
                f"one trial: write a list, {name}: [{', '.join(map(str, several))}]"
            )


def _sentence(box: str) -> str:
    """What the first paragraph of tyro's box says."""
    lines = [re.sub(r"[│╭╮╰╯]", "", line).strip() for line in box.splitlines()]
    said: list[str] = []
    for line in lines:
        if said and (not line or line.startswith("─")):
            break
        if line and not line.startswith("─"):
            said.append(line)
    return " ".join(said).rstrip(".") + ";"


def _steps(config: Any) -> int | None:
    for part in ("fit", "agent"):
        steps = getattr(getattr(config, part, None), "steps", None)
        if isinstance(steps, int):
            return steps
    return None
