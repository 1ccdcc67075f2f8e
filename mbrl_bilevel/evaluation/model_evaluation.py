"""All metrics of one dynamics model on held-out data: `evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.baselines import LinearModel
from mbrl_bilevel.evaluation.coverage import INTERVALS, interval_coverage
from mbrl_bilevel.evaluation.fan import Fan, fan
from mbrl_bilevel.evaluation.json_values import finite_or_null
from mbrl_bilevel.evaluation.k_step import KStep, k_step, longest
from mbrl_bilevel.evaluation.one_step import OneStep, evaluate_one_step
from mbrl_bilevel.evaluation.recalibration import stored_factors
from mbrl_bilevel.evaluation.rollouts import sampled_paths
from mbrl_bilevel.evaluation.targets import target_counts
from mbrl_bilevel.evaluation.windows import draw_windows
from mbrl_bilevel.models.dynamics import DynamicsModel

HORIZONS = (1, 10, 50, 100)  # steps ahead
FAN_STEPS, FAN_STARTS, PARTICLES = 60, 200, 20


@dataclass(frozen=True)
class ModelEvaluation:
    """Metrics of one model; `coverage` [l, k] belongs to INTERVALS.

    horizons: those that were asked for and that held-out episodes reach. target_names: of the
    targets that vary in the training part; no metric includes the others. recalibration: factors
    of the deviations of those targets, None for a model as it was trained.
    """

    one_step: OneStep
    k_step: KStep
    coverage: Float[Tensor, "l c"]
    fan: Fan
    horizons: Sequence[int]
    target_names: Sequence[str]
    target_counts: dict[str, Any]
    recalibration: Sequence[float] | None

    def metrics(self) -> dict[str, Any]:
        """As JSON: the metrics of OneStep and, by steps ahead, those that begin with k_step."""

        def by_horizon(values: Tensor | None) -> dict[str, float | int] | None:
            if values is None:
                return None
            return {str(k): values[k - 1].item() for k in self.horizons if k <= len(values)}

        many = {
            "k_step": by_horizon(self.k_step.rmse),
            "k_step_persistence": by_horizon(self.k_step.persistence),
            "k_step_linear": by_horizon(self.k_step.linear),
            "k_step_coverage": {
                f"{100 * level:.0f}": by_horizon(share)
                for level, share in zip(INTERVALS, self.coverage, strict=True)
            },
            "k_step_starts": by_horizon(self.k_step.starts),
            "k_step_non_finite": self.k_step.non_finite,
            "target_names": list(self.target_names),
            "recalibration": self.recalibration,
        }
        many |= self.target_counts
        return self.one_step.metrics() | finite_or_null(many)


def evaluate(
    model: DynamicsModel,
    held_out: Transitions,
    horizons: Sequence[int] = HORIZONS,
    generator: torch.Generator | None = None,
    train: Transitions | None = None,
    units_of: DynamicsModel | None = None,
) -> ModelEvaluation:
    """Evaluates a model's elites on transitions that it was not trained on.

    `horizons` are steps ahead, of which those are taken that held-out episodes reach; `generator`
    draws their starts and samples (default: seed 0). `train` fits the linear baseline (none without
    it). Metrics are in standard deviations of the
    training part of `units_of`, by default the model's own.

    Raises:
        InputError: a horizon below 1, or no held-out episode long enough for any of them.
    """
    if not horizons or min(horizons) < 1:
        raise InputError(f"horizons {list(horizons)}: name steps ahead of at least 1")
    if generator is None:
        generator = torch.Generator(model.elites.device).manual_seed(0)
    units = units_of or model
    unit = (model.target_standardizer.std / units.target_standardizer.std)[model.informative]
    varying = model.informative_observations
    scale = units.input_standardizer.std[: model.obs_dim]
    one = evaluate_one_step(model, held_out, unit)
    windows = draw_windows(held_out, max(horizons), generator)
    if min(horizons) > longest(windows):
        raise InputError(
            f"no held-out episode has {min(horizons)} steps (or too few of them to average over; "
            f"{longest(windows)} can be evaluated): ask for a shorter horizon"
        )
    linear = None if train is None else LinearModel.fit(model, train)
    many = k_step(model, windows, generator, linear, scale)
    few = windows[:FAN_STARTS]
    few = few.first(longest(few))
    paths = sampled_paths(model, few, generator, -(-PARTICLES // len(model.elites)))
    shown = min(FAN_STEPS, few.steps)
    return ModelEvaluation(
        one,
        many,
        interval_coverage(paths[..., varying], few.of(varying)),
        fan(model, few.first(shown), paths[:, :, :shown], scale, generator),
        [k for k in horizons if k <= len(many.rmse)],
        model.informative_names,
        target_counts(model),
        stored_factors(model),
    )
