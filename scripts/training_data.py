"""What a run's config.yaml says of its data set, and whether the data are still what they were."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbrl_bilevel.data.dataset_folder import lasting_name
from mbrl_bilevel.data.fingerprint import (
    changes,
    fingerprint,
    first_episodes,
    is_fingerprint,
    same_rows,
)
from mbrl_bilevel.data.minari import Dataset
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import harmless, one_line, read_yaml
from mbrl_bilevel.training.run_folder import CONFIG

KINDS: dict[str, tuple[type, ...]] = {
    "dataset": (str,),
    "seed": (int,),
    "max_transitions": (int, type(None)),
}  # of what a run's config.yaml says of its data


@dataclass(frozen=True)
class TrainingData:
    """What a run was trained on; `fingerprint` is None of runs of version 0.1."""

    dataset: str
    seed: int
    max_transitions: int | None
    fingerprint: dict[str, Any] | None


def described(name: str, dataset: Dataset) -> dict[str, Any]:
    """What config.yaml holds of a data set: its name from any directory, and its content."""
    return {"dataset": lasting_name(name), "fingerprint": fingerprint(dataset)}


def require_unchanged(run: Path, given: str, dataset: Dataset) -> None:
    """Refuses to go on with a run whose data set has changed since it began.

    `given` is its name on the command line. Runs that say nothing of their data's content, or that
    began with a data set of another name, are left to `RunFolder`.

    Raises:
        InputError: the data have changed, and how.
    """
    try:
        config = read_yaml(run / CONFIG)
        before, name = config["fingerprint"], config["dataset"]
    except (OSError, ValueError, TypeError, KeyError):
        return
    if name != lasting_name(given):
        return  # another data set altogether, which `RunFolder` says
    found = changes(before, fingerprint(dataset)) if is_fingerprint(before) else []
    if found:
        raise InputError(
            f"--resume: the data set {dataset.id} has changed since the run in {run} began "
            f"({', '.join(found)}): restore it, or choose another --out"
        )


def trained_on(folder: Path) -> TrainingData | None:
    """What config.yaml says of the training data; None where there is none.

    An agent that learns from a data set has its model from a run of train-model in OUT/model, and
    is told what that says; the data of other agents' models were steps of their own.

    Raises:
        InputError: a damaged config.yaml.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        config = read_yaml(path)
        if _agent(config) is not None:
            return trained_on(folder / "model")
        found = {name: config[name] for name in KINDS}
        for name, kinds in KINDS.items():
            if type(found[name]) not in kinds:
                raise ValueError(f"{name} is {repr(found[name])[:60]}")
        mark = config.get("fingerprint")
        if mark is not None and not is_fingerprint(mark):
            raise ValueError(f"fingerprint is {repr(mark)[:60]}")
        return TrainingData(**found, fingerprint=mark)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is damaged ({one_line(error)}): mend it, or remove it and "
            "name the data to evaluate on by --dataset"
        ) from None


def untold(folder: Path) -> str:
    """Why nobody knows what the model in a folder was trained on."""
    path = folder / CONFIG
    if not path.is_file():
        return f"{path} is missing"
    return (
        f"{folder} is a run of train-agent {_agent(read_yaml(path))}, which keeps no data set of "
        "what its model learned from"
    )


def _agent(config: Any) -> str | None:
    """That of a run of train-agent."""
    agent = config.get("agent") if isinstance(config, dict) else None
    return agent if harmless(agent) else None


def as_it_was(folder: Path, trained: TrainingData, now: Dataset) -> tuple[Dataset, list[str]]:
    """The data set with the rows that the run in `folder` was trained on, and remarks.

    Episodes that were added since are left out, so that the split is the same.

    Raises:
        InputError: its rows are no longer those.
    """
    before = trained.fingerprint
    if before is None:
        return now, [
            f"{folder} does not say what {now.id} held when it was trained on it (runs of version "
            "0.1 do not): if it has changed since, test episodes may have been trained on"
        ]
    mark = fingerprint(now)
    if same_rows(before, mark):
        found = changes(before, mark)
        changed = f"{now.id} has {', '.join(found)} than when {folder} was trained"
        return now, [changed] if found else []
    if now.transitions.episodes > before["episodes"]:
        earlier = first_episodes(now, before["episodes"])
        if same_rows(before, fingerprint(earlier)):
            return earlier, [
                f"{now.id} has grown from {before['episodes']:,} to {mark['episodes']:,} episodes "
                f"since {folder} was trained: the new ones are left out"
            ]
    raise InputError(
        f"the data set {now.id} has changed since {folder} was trained on it "
        f"({', '.join(changes(before, mark))}), so that nobody knows which rows are new to the "
        "model: restore it, or name data to evaluate on by --dataset"
    )
