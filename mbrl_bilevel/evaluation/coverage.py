"""Whether sampled futures hold the truth as often as they say."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.evaluation.windows import Windows

INTERVALS = (0.5, 0.9)  # central intervals that are looked at


def share_inside(
    less: Int[Tensor, "*s"], equal: Int[Tensor, "*s"], particles: int, level: float
) -> Float[Tensor, "*s"]:
    """How likely a truth with `less` particles below and `equal` beside it is in the central part.

    Among P particles of its own distribution a truth has each of the P + 1 ranks equally often; its
    quantile is spread evenly over the ranks that it may have, from less / (P + 1) to (less + equal
    + 1) / (P + 1), of which the share inside (1 -+ level) / 2 counts. The mean is `level`, without
    bias, however few the particles are.
    """
    low, high = less / (particles + 1), (less + equal + 1) / (particles + 1)
    inside = high.clamp(max=(1 + level) / 2) - low.clamp(min=(1 - level) / 2)
    return inside.clamp_min(0) / (high - low)


def interval_coverage(
    paths: Float[Tensor, "p s k o"], windows: Windows, levels: Sequence[float] = INTERVALS
) -> Float[Tensor, "l k"]:
    """Share of truths in the central intervals of the particles, mean over windows and dimensions.

    Only recorded steps count. A particle that is not finite lies on no side: truths among nothing
    but such particles count as outside.
    """
    truth, recorded = windows.truth, windows.recorded.unsqueeze(-1)
    less, equal = (paths < truth).sum(0), (paths == truth).sum(0)
    lost = ~paths.isfinite().any(0)
    count = windows.recorded.sum(0) * truth.shape[-1]

    def share(level: float) -> Float[Tensor, "k"]:
        inside = share_inside(less, equal, len(paths), level)
        return inside.where(recorded & ~lost, 0.0).sum((0, 2)) / count

    return torch.stack([share(level) for level in levels])
