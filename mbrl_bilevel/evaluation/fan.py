"""One held-out stretch of an episode and what the model expects of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.evaluation.rollouts import sampled_paths
from mbrl_bilevel.evaluation.windows import Windows
from mbrl_bilevel.models.dynamics import DynamicsModel

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PARTICLES = 200


@dataclass(frozen=True)
class Fan:
    """Truth and quantiles (QUANTILES) of sampled futures, in the environment's units.

    The d dimensions run from the hardest to predict to the easiest. lost: share of particles that
    are not finite at the end, which stand in no band.
    """

    truth: Float[Tensor, "k d"]
    quantiles: Float[Tensor, "q k d"]
    names: Sequence[str]
    lost: float


def fan(
    model: DynamicsModel,
    windows: Windows,
    paths: Float[Tensor, "p s k o"],
    scale: Float[Tensor, "o"],
    generator: torch.Generator,
    dimensions: int = 6,
) -> Fan:
    """The model's expectation of a window that is as hard for it as half of the others.

    Hardness is the final error of the mean of `paths` (particles in the same windows) in units of
    `scale`; the dimensions are spread evenly over the order by that error, those whose change is
    constant in the training part left out.
    """
    varying = model.informative_observations
    error = ((paths.mean(0) - windows.truth)[:, -1] / scale)[:, varying].square()
    error = error.where(error.isfinite(), torch.inf)
    full = windows.recorded[:, -1].nonzero().squeeze(-1)
    order = full[error[full].mean(-1).argsort()]
    window = windows[order[len(order) // 2].unsqueeze(0)]
    shown = varying[_spread(error[full].mean(0).argsort(descending=True), dimensions)]
    per_elite = -(-PARTICLES // len(model.elites))
    futures = sampled_paths(model, window, generator, per_elite)[:, 0][..., shown]
    levels = torch.tensor(QUANTILES, dtype=futures.dtype, device=futures.device)
    finite = futures.isfinite().all(-1, keepdim=True)
    return Fan(
        window.truth[0][:, shown],
        futures.where(finite, torch.nan).nanquantile(levels, dim=0),
        [model.observation_names[i] for i in shown.tolist()],
        1 - finite[:, -1].double().mean().item(),
    )


def _spread(order: Int[Tensor, "o"], count: int) -> Int[Tensor, "d"]:
    """`count` entries of an order, the first and the last among them."""
    count = min(count, len(order))
    places = torch.linspace(0, len(order) - 1, count, device=order.device).round().long()
    return order[places]
