"""`eval-model`: evaluates dynamics models on data they were not trained on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.image import imread
from torch.utils.tensorboard import SummaryWriter

from mbrl_bilevel.data.minari import Dataset
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation import figures
from mbrl_bilevel.evaluation.coverage import INTERVALS
from mbrl_bilevel.evaluation.fan_figure import predicted_fan
from mbrl_bilevel.evaluation.model_evaluation import ModelEvaluation, evaluate
from mbrl_bilevel.evaluation.model_table import rows, table
from mbrl_bilevel.evaluation.targets import how_many_vary, warn_of_moving
from mbrl_bilevel.files import write_text
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.ranges import Count
from mbrl_bilevel.scripts.command import Command, Outcome, resolve_device, say
from mbrl_bilevel.scripts.compare_models import compare
from mbrl_bilevel.scripts.evaluation_data import EvaluationData, evaluation_data
from mbrl_bilevel.scripts.flags import refuse_twice
from mbrl_bilevel.warning_lines import warnings_in_one_line

EVALUATION, EVENTS = "evaluation.json", "eval"


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of eval-model."""

    model: Path | tuple[Path, ...]
    """Run folders of train-model; several are evaluated side by side."""
    dataset: str | None = None
    """Evaluate on the whole of this data set; default: on the test episodes of the model's own."""
    horizons: tuple[Count, ...] = (1, 10, 50, 100)
    """Steps ahead at which the open-loop error is reported, where episodes are long enough."""
    out: Path | None = None
    """New folder for the comparison of several models; default: comparison-001, ... beside them."""


def run(config: Config) -> Outcome:
    with warnings_in_one_line():
        return _run(config)


def _run(config: Config) -> Outcome:
    device = resolve_device(config.device)
    folders = _folders(config)
    models = [DynamicsModel.load(folder, device) for folder in folders]
    loaded: dict[str, Dataset] = {}
    data = [
        evaluation_data(folder, model, config.dataset, loaded)
        for folder, model in zip(folders, models, strict=True)
    ]
    same_rows = len({part.rows for part in data}) == 1
    shared = same_rows and len({model.informative_names for model in models}) == 1
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
        found.append(_write(config, folder, result, part, folders[0] if shared else folder))
    remarks = _remarks(config, data, evaluated, found)
    if len(folders) == 1:
        return Outcome(found[0], "\n".join([_one_model(found[0]), *remarks]))
    if not shared:
        remarks.append(_why_not_comparable(same_rows))
    return compare(folders, evaluated, found, remarks, shared, config.out, config.seed)


def _why_not_comparable(same_rows: bool) -> str:
    if same_rows:
        return (
            "the models predict different things (with and without the reward, or other targets "
            "were constant in training), each evaluated in units of its own training part: no best "
            "is marked"
        )
    return (
        "the models are evaluated on different rows, each in units of its own training part, and "
        "no best is marked: give --dataset to evaluate all of them on the same"
    )


def _folders(config: Config) -> list[Path]:
    folders = [config.model] if isinstance(config.model, Path) else list(config.model)
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


def _write(
    config: Config, folder: Path, result: ModelEvaluation, data: EvaluationData, units: Path
) -> dict[str, Any]:
    """evaluation.json, PNGs and TensorBoard's events in the model's folder; the JSON."""
    pictures = folder / "figures"
    found = result.metrics() | {
        "transitions": len(data.test),
        "source": data.source,
        "units": f"standard deviations of the training part of {units}",
        "figures": str(pictures),
        "seed": config.seed,
        "model": str(folder),
    }
    drawn = {
        "error_by_dimension": figures.error_by_dimension(result.one_step, result.target_names),
        "calibration": figures.calibration(result.one_step),
        "error_growth": figures.error_growth(result.k_step, result.coverage),
        "predicted_fan": predicted_fan(result.fan),
    }
    try:
        pictures.mkdir(exist_ok=True)
        saved = [figures.save(figure, pictures / f"{name}.png") for name, figure in drawn.items()]
        _events(folder / EVENTS, found, result, saved)
        write_text(folder / EVALUATION, json.dumps(found, indent=2) + "\n")
    except OSError as error:
        raise InputError(
            f"the results cannot be written to {folder} ({error.strerror}): copy the model to a "
            "folder of your own"
        ) from None
    return found


def _events(
    folder: Path, found: dict[str, Any], result: ModelEvaluation, pictures: Sequence[Path]
) -> None:
    """TensorBoard: figures, scalars, and curves over the steps ahead; replaces earlier ones.

    In a folder of their own, because TensorBoard stops reading a run's events file, which may
    still grow, as soon as a newer one stands beside it.
    """
    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    with SummaryWriter(str(folder)) as writer:
        for name in ("rmse", "nll", "r2", "ece", "sharpness"):
            if found[name] is not None:
                writer.add_scalar(f"eval/{name}", found[name])
        curves = {"k_step": result.k_step.rmse} | {
            f"k_step_coverage_{100 * level:.0f}": share
            for level, share in zip(INTERVALS, result.coverage, strict=True)
        }
        for name, values in curves.items():
            for k, value in enumerate(values.tolist(), start=1):
                writer.add_scalar(f"eval/{name}", value, k)
        for path in pictures:  # as they are: drawing a figure again takes long
            writer.add_image(f"eval/{path.stem}", imread(path), dataformats="HWC")


def _remarks(
    config: Config,
    data: Sequence[EvaluationData],
    evaluated: Sequence[ModelEvaluation],
    found: Sequence[dict[str, Any]],
) -> list[str]:
    """What a reader must know to read the figures right, a sentence each."""
    remarks = [remark for part in data for remark in part.remarks]
    for one, its in zip(evaluated, found, strict=True):
        left_out = [k for k in config.horizons if k not in one.horizons]
        if left_out:
            steps = ", ".join(map(str, left_out))
            remarks.append(
                f"left out for {its['model']}: {steps} steps ahead, too few of its held-out "
                f"episodes are so long (at most {len(one.k_step.rmse)} steps can be evaluated)"
            )
        lost = [
            f"{number} {what}"
            for number, what in (
                (one.one_step.non_finite, "one-step predictions"),
                (one.k_step.non_finite, "open-loop futures"),
            )
            if number
        ]
        if lost:
            remarks.append(
                f"not finite for {its['model']}: {' and '.join(lost)}, left out of its errors"
            )
    return list(dict.fromkeys(remarks))


def _one_model(found: dict[str, Any]) -> str:
    return table([Path(found["model"]).name], rows([found]), mark=False) + (
        f"\nunits: {found['units']}; {how_many_vary(found)}\nfigures: {found['figures']}"
    )
