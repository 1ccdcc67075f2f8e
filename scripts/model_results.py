"""What eval-model leaves in a model's folder and says of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.image import imread
from torch.utils.tensorboard import SummaryWriter

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation import figures
from mbrl_bilevel.evaluation.coverage import INTERVALS
from mbrl_bilevel.evaluation.fan_figure import predicted_fan
from mbrl_bilevel.evaluation.model_evaluation import ModelEvaluation
from mbrl_bilevel.evaluation.model_table import rows, table
from mbrl_bilevel.evaluation.targets import how_many_vary
from mbrl_bilevel.files import read_json, write_text
from mbrl_bilevel.scripts.evaluation_data import EvaluationData
from mbrl_bilevel.training.folder_lock import is_locked
from mbrl_bilevel.training.run_folder import SUMMARY

EVALUATION = "evaluation.json"
EVENTS, SUFFIX, BESIDE = "events.out.tfevents.*", ".eval", "eval"


def write(
    folder: Path, result: ModelEvaluation, data: EvaluationData, *, units: Path, seed: int
) -> dict[str, Any]:
    """Writes evaluation.json, PNGs and TensorBoard's events to a model's folder; returns the JSON.

    `units` is the folder of the model whose training deviations are the unit.

    Raises:
        InputError: the folder cannot be written.
    """
    pictures = folder / "figures"
    found = result.metrics() | {
        "transitions": len(data.test),
        "source": data.source,
        "units": f"standard deviations of the training part of {units}",
        "figures": str(pictures),
        "seed": seed,
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
        _write_events(folder, found, result, saved)
        write_text(folder / EVALUATION, json.dumps(found, indent=2) + "\n")
    except OSError as error:
        raise InputError(
            f"the results cannot be written to {folder} ({error.strerror}): copy the model to a "
            "folder of your own"
        ) from None
    return found


def _write_events(
    folder: Path, found: dict[str, Any], result: ModelEvaluation, pictures: Sequence[Path]
) -> None:
    """TensorBoard: metrics at the last step of the training, curves over the steps ahead, figures.

    They belong to the run of the training, and replace those of an earlier evaluation. While the
    training still writes they go to a run of their own: TensorBoard stops reading an events file as
    soon as a newer one stands beside it.
    """
    for earlier in (*folder.glob(f"{EVENTS}{SUFFIX}"), *(folder / BESIDE).glob(EVENTS)):
        earlier.unlink()
    into = folder / BESIDE if is_locked(folder) else folder
    with SummaryWriter(str(into), filename_suffix=SUFFIX) as writer:
        for name in ("rmse", "nll", "r2", "ece", "sharpness"):
            if found[name] is not None:
                writer.add_scalar(f"eval/{name}", found[name], _last_step(folder))
        curves = {"k_step": result.k_step.rmse} | {
            f"k_step_coverage_{100 * level:.0f}": share
            for level, share in zip(INTERVALS, result.coverage, strict=True)
        }
        for name, values in curves.items():
            for k, value in enumerate(values.tolist(), start=1):
                writer.add_scalar(f"eval/{name}", value, k)
        for path in pictures:  # as they are: drawing a figure again takes long
            writer.add_image(f"eval/{path.stem}", imread(path), dataformats="HWC")


def _last_step(folder: Path) -> int:
    """Of the training; 0 where nothing is known of it."""
    try:
        steps = read_json(folder / SUMMARY)["steps"]
    except (OSError, ValueError, TypeError, KeyError):
        return 0
    return steps if isinstance(steps, int) else 0


def remarks_on(
    horizons: Sequence[int],
    data: Sequence[EvaluationData],
    evaluated: Sequence[ModelEvaluation],
    found: Sequence[dict[str, Any]],
) -> list[str]:
    """What a reader must know to read the metrics right, a sentence each."""
    remarks = [remark for part in data for remark in part.remarks]
    for one, its in zip(evaluated, found, strict=True):
        too_long = [k for k in horizons if k not in one.horizons]
        if too_long:
            steps = ", ".join(map(str, too_long))
            remarks.append(
                f"not evaluated for {its['model']}: {steps} steps ahead, for which too few of its "
                f"test episodes are long enough (at most {len(one.k_step.rmse)} steps are)"
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


def text_of(found: dict[str, Any]) -> str:
    """The table of one model, its units and where its figures lie."""
    return table([Path(found["model"]).name], rows([found]), mark=False) + (
        f"\nunits: {found['units']}; {how_many_vary(found)}\nfigures: {found['figures']}"
    )
