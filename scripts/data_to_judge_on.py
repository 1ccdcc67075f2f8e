"""Which rows a model is judged on, and which it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbrl_bilevel.data.minari import Dataset, load_dataset
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import one_line, read_yaml
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts.train_model import split
from mbrl_bilevel.training.run_folder import CONFIG

KINDS: dict[str, tuple[type, ...]] = {
    "dataset": (str,),
    "seed": (int,),
    "max_transitions": (int, type(None)),
}  # of what a run's config.yaml says of its data


@dataclass(frozen=True)
class Data:
    """Rows to judge on, where they come from, and the part that the model was trained on."""

    test: Transitions
    source: str
    train: Transitions | None
    rows: tuple[Any, ...]
    remarks: tuple[str, ...]


def data_to_judge_on(
    folder: Path, model: DynamicsModel, dataset: str | None, loaded: dict[str, Dataset]
) -> Data:
    """What to judge this model on, and to fit its linear baseline to."""
    trained = _trained_on(folder)
    if dataset is None:
        if trained is None:
            raise InputError(
                f"{folder / CONFIG} is missing: name the data to judge on by --dataset"
            )
        own = _load(trained["dataset"], loaded)
        _require_fit(model, folder, own)
        key = (own.id, trained["seed"], trained["max_transitions"])
        parts = split(own, trained["seed"], trained["max_transitions"])
        return Data(parts[2], f"the test episodes of {own.id}", parts[0], key, ())
    whole = _load(dataset, loaded)
    _require_fit(model, folder, whole)
    remarks = []
    train = None
    try:
        if trained is not None:
            own = _load(trained["dataset"], loaded)
            train = split(own, trained["seed"], trained["max_transitions"])[0]
            if own.id == whole.id:
                remarks.append(
                    f"{folder} was trained on a part of {own.id}: its figures flatter it"
                )
    except InputError:
        pass
    if train is None:
        remarks.append(f"no linear baseline for {folder}: its training data are not at hand")
    return Data(whole.transitions, whole.id, train, (whole.id,), tuple(remarks))


def _load(dataset: str, loaded: dict[str, Dataset]) -> Dataset:
    if dataset not in loaded:
        loaded[dataset] = load_dataset(dataset)
    return loaded[dataset]


def _trained_on(folder: Path) -> dict[str, Any] | None:
    """What config.yaml says of the training data; None where there is none."""
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        config = read_yaml(path)
        found = {name: config[name] for name in KINDS}
        for name, kinds in KINDS.items():
            if type(found[name]) not in kinds:
                raise ValueError(f"{name} is {repr(found[name])[:60]}")
        return found
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is damaged ({one_line(error)}): mend it, or remove it and "
            "name the data to judge on by --dataset"
        ) from None


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
    if None not in (dataset.env_id, model.env_id) and dataset.env_id != model.env_id:
        raise InputError(
            f"{dataset.id} was collected in {dataset.env_id}, the model in {folder} was trained "
            f"for {model.env_id}: choose a data set of the model's environment"
        )
