"""`eval-model`: evaluates dynamics models on data they were not trained on."""

from collections.abc import Sequence
from pathlib import Path

import torch

from mbrl_bilevel.data.minari import Dataset
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.model_evaluation import evaluate
from mbrl_bilevel.evaluation.recalibration import recalibrate, stored_factors
from mbrl_bilevel.evaluation.targets import warn_of_moving
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.products import choose_products
from mbrl_bilevel.scripts.command import Outcome, resolve_device, say
from mbrl_bilevel.scripts.compare_models import compare
from mbrl_bilevel.scripts.evaluation_data import EvaluationData, evaluation_data
from mbrl_bilevel.scripts.flag_checks import refuse_twice
from mbrl_bilevel.scripts.flags.eval_model import Config
from mbrl_bilevel.scripts.model_results import remarks_on, text_of, write
from mbrl_bilevel.training.folder_lock import is_locked
from mbrl_bilevel.warning_lines import warnings_in_one_line


def run(config: Config) -> Outcome:
    with warnings_in_one_line():
        return _run(config)


def _run(config: Config) -> Outcome:
    device = resolve_device(config.device)
    choose_products(config.precision, device)
    folders = _folders(config)
    models = [DynamicsModel.load(folder, device) for folder in folders]
    loaded: dict[str, Dataset] = {}
    data = [
        evaluation_data(folder, model, config.dataset, loaded)
        for folder, model in zip(folders, models, strict=True)
    ]
    same_rows = len({part.rows for part in data}) == 1
    shared = same_rows and len({model.informative_names for model in models}) == 1
    if config.recalibrate:
        _recalibrate(folders, models, data)
    evaluated, found = [], []
    for folder, model, part in zip(folders, models, data, strict=True):
        say(f"evaluating {folder} on {len(part.test)} transitions of {part.source}")
        warn_of_moving(model, part.test.to(device), "test")
        result = evaluate(
            model,
            part.test.to(device),
            config.horizons,
            torch.Generator(device).manual_seed(config.seed),
            None if part.train is None else part.train.to(device),
            models[0] if shared else None,
        )
        evaluated.append(result)
        units = folders[0] if shared else folder
        found.append(write(folder, result, part, units=units, seed=config.seed))
    remarks = remarks_on(config.horizons, data, evaluated, found)
    if len(folders) == 1:
        return Outcome(found[0], "\n".join([text_of(found[0]), *remarks]))
    if not shared:
        remarks.append(_why_not_comparable(same_rows))
    return compare(folders, evaluated, found, remarks, shared, config.out, config.seed)


def _recalibrate(
    folders: Sequence[Path], models: Sequence[DynamicsModel], data: Sequence[EvaluationData]
) -> None:
    """Fits every model's factors before any is stored."""
    for folder, model, part in zip(folders, models, data, strict=True):
        if is_locked(folder):
            raise InputError(f"--recalibrate: a training writes to {folder}; wait for its end")
        if part.held_out is None:
            raise InputError(
                f"--recalibrate: the held-out episodes of {folder} are not available; restore its "
                "data set, or evaluate without --recalibrate"
            )
        recalibrate(model, part.held_out.to(model.elites.device))
    for folder, model in zip(folders, models, strict=True):
        factors = stored_factors(model) or [1.0]
        say(f"{folder}: deviations times {min(factors):.3g} to {max(factors):.3g} from now on")
        try:
            model.save(folder)
        except OSError as error:
            raise InputError(
                f"the factors cannot be stored in {folder} ({error.strerror}): copy the model to a "
                "folder of your own"
            ) from None


def _why_not_comparable(same_rows: bool) -> str:
    if same_rows:
        return (
            "the models predict different targets (with and without the reward, or other targets "
            "were constant in training), each evaluated in units of its own training part: no best "
            "is marked"
        )
    return (
        "the models are evaluated on different rows, each in units of its own training part, and "
        "no best is marked: give --dataset to evaluate all of them on the same"
    )


def _folders(config: Config) -> list[Path]:
    folders = list(config.model)
    if not folders:
        raise InputError("--model: name at least one run folder of train-model")
    if not config.horizons:
        raise InputError("--horizons: name the steps ahead to evaluate at, e.g. --horizons 1 10")
    refuse_twice("--model", [folder.resolve() for folder in folders])
    if config.out is not None and len(folders) == 1:
        raise InputError(
            f"--out {config.out} takes the comparison of several models: name more, or leave it out"
        )
    if config.out is not None and config.out.exists():
        raise InputError(f"--out {config.out} exists and nothing is overwritten; choose another")
    return folders
