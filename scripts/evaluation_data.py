"""Which rows a model is evaluated on, and which it was trained on."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbrl_bilevel.data.fingerprint import fingerprint, same_rows
from mbrl_bilevel.data.minari import Dataset, load_dataset
from mbrl_bilevel.data.split import split
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.envs.rebuild import same_environment
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import read_json
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts.training_data import TrainingData, as_it_was, trained_on, untold
from mbrl_bilevel.training.run_folder import SUMMARY


@dataclass(frozen=True)
class EvaluationData:
    """Rows to evaluate on, where they come from, and the parts that the training had."""

    test: Transitions
    source: str
    train: Transitions | None
    held_out: Transitions | None
    rows: tuple[Any, ...]
    remarks: tuple[str, ...]


def evaluation_data(
    folder: Path, model: DynamicsModel, dataset: str | None, loaded: dict[str, Dataset]
) -> EvaluationData:
    """What to evaluate this model on, and to fit its linear baseline to.

    Raises:
        InputError: no data are named and the run names none, or its data set has changed; data of
            other sizes or of another environment than the model's.
    """
    trained = trained_on(folder)
    if dataset is None:
        if trained is None:
            raise InputError(f"{untold(folder)}: name the data to evaluate on by --dataset")
        own = _load(trained.dataset, loaded)
        _require_fit(model, folder, own)
        own, remarks = as_it_was(folder, trained, own)
        key = (own.id, len(own.transitions), trained.seed, trained.max_transitions)
        parts = _split(own, trained)
        _require_same_split(folder, parts)
        return EvaluationData(
            parts[2], f"the test episodes of {own.id}", *parts[:2], key, tuple(remarks)
        )
    whole = _load(dataset, loaded)
    _require_fit(model, folder, whole)
    said: list[str] = []
    train, held_out = None, None
    if trained is not None:
        train, held_out = _trained_parts(folder, trained, whole, loaded)
        if _holds_what_was_trained_on(trained, whole, loaded):
            said.append(f"{folder} was trained on a part of {whole.id}: its metrics are optimistic")
    if train is None:
        said.append(f"no linear baseline for {folder}: its training data are not available")
    return EvaluationData(whole.transitions, whole.id, train, held_out, (whole.id,), tuple(said))


def _trained_parts(
    folder: Path, trained: TrainingData, whole: Dataset, loaded: dict[str, Dataset]
) -> tuple[Transitions | None, Transitions | None]:
    """Training and held-out part, of the run's own data set or a copy; None without either."""
    try:
        own = whole if _is_copy(trained, whole) else _load(trained.dataset, loaded)
        own, _ = as_it_was(folder, trained, own)
        train, held_out, _ = _split(own, trained)
        return train, held_out
    except InputError:
        return None, None


def _split(data: Dataset, trained: TrainingData) -> tuple[Transitions, Transitions, Transitions]:
    return split(data.transitions, trained.seed, max_transitions=trained.max_transitions)


def _is_copy(trained: TrainingData, whole: Dataset) -> bool:
    return trained.fingerprint is not None and same_rows(trained.fingerprint, fingerprint(whole))


def _holds_what_was_trained_on(
    trained: TrainingData, whole: Dataset, loaded: dict[str, Dataset]
) -> bool:
    try:
        return _is_copy(trained, whole) or _load(trained.dataset, loaded).id == whole.id
    except InputError:
        return trained.dataset == whole.id


def _require_same_split(folder: Path, parts: tuple[Transitions, ...]) -> None:
    """Holds the split against the counts that the run wrote down, where it did.

    Raises:
        InputError: it was trained on other rows, by a version that split otherwise.
    """
    try:
        counts = read_json(folder / SUMMARY)["transitions"]
    except (OSError, ValueError, TypeError, KeyError):
        return
    found = dict(zip(("train", "held_out", "test"), map(len, parts), strict=True))
    if counts != found:
        raise InputError(
            f"{folder / SUMMARY} counts {counts} transitions where the split of its data set gives "
            f"{found}: the data have changed, or the version that trained the model splits them "
            "differently; name data to evaluate on by --dataset"
        )


def _load(dataset: str, loaded: dict[str, Dataset]) -> Dataset:
    if dataset not in loaded:
        loaded[dataset] = load_dataset(dataset)
    return loaded[dataset]


def _require_fit(model: DynamicsModel, folder: Path, dataset: Dataset) -> None:
    transitions = dataset.transitions
    if (transitions.observation.shape[1], transitions.action.shape[1]) != (
        model.obs_dim,
        model.act_dim,
    ):
        raise InputError(
            f"{dataset.id} has {transitions.observation.shape[1]} observation and "
            f"{transitions.action.shape[1]} action dimensions, the model in {folder} has "
            f"{model.obs_dim} and {model.act_dim}: choose the data set of the model's environment"
        )
    ours, theirs = dataset.env_spec, model.env_spec
    if ours is None or theirs is None or same_environment(ours, theirs):
        return
    both = f"{dataset.id} was collected in {ours}, the model in {folder} was trained for {theirs}"
    if ours.name != theirs.name:
        raise InputError(f"{both}: choose a data set of the model's environment")
    warnings.warn(
        f"{both}: it is evaluated outside of the environment of its training", stacklevel=2
    )
