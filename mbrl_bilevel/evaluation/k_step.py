"""Open-loop error of a dynamics model over many steps of held-out episodes."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl_bilevel.evaluation.baselines import LinearModel
from mbrl_bilevel.evaluation.rollouts import mean_paths
from mbrl_bilevel.evaluation.windows import Windows
from mbrl_bilevel.models.dynamics import DynamicsModel

MIN_STARTS = 10  # fewer windows of a length say nothing of it


@dataclass(frozen=True)
class KStep:
    """Errors after 1 ... k steps, in standard deviations of the observation (training part).

    Over the dimensions whose change is not constant in the training part.
    rmse [k]: of the mean over members that each follow their own mean prediction.
    persistence [k]: of the guess that nothing changes. linear [k]: of the linear model, or None.
    starts [k]: windows that are so long, over which the errors at that step are averaged.
    non_finite: windows whose prediction is not finite at some step, left out of rmse from there on.
    """

    rmse: Float[Tensor, "k"]
    persistence: Float[Tensor, "k"]
    linear: Float[Tensor, "k"] | None
    starts: Int[Tensor, "k"]
    non_finite: int


def k_step(
    model: DynamicsModel,
    windows: Windows,
    generator: torch.Generator,
    linear: LinearModel | None = None,
    scale: Float[Tensor, "o"] | None = None,
) -> KStep:
    """Feeds the recorded actions to the model, which sees the first observation of each window.

    `scale` is the unit of each dimension (default: the model's own standard deviations). Steps
    that fewer than MIN_STARTS windows reach are left out, the first one excepted.
    """
    varying = model.informative_observations
    scale = model.input_standardizer.std[: model.obs_dim] if scale is None else scale
    windows = windows.first(longest(windows))
    predicted = mean_paths(model, windows, generator).mean(0)
    finite = predicted.isfinite().all(-1)
    lost = (~finite & windows.recorded).any(-1)

    def rmse(path: Float[Tensor, "#s #k o"], counted: Bool[Tensor, "s k"]) -> Float[Tensor, "k"]:
        error = ((path - windows.truth) / scale)[..., varying].double().square().mean(-1)
        return (error.where(counted, 0.0).sum(0) / counted.sum(0)).sqrt()

    recorded = windows.recorded
    return KStep(
        rmse=rmse(predicted, recorded & finite),
        persistence=rmse(windows.start.unsqueeze(1), recorded),
        linear=None if linear is None else rmse(linear.paths(windows), recorded),
        starts=recorded.sum(0),
        non_finite=int(lost.sum()),
    )


def longest(windows: Windows) -> int:
    """Steps that at least MIN_STARTS windows reach; 1 where hardly any are there."""
    return max(1, int((windows.recorded.sum(0) >= MIN_STARTS).sum()))
