"""The Gaussian of a cross-entropy method, fitted to its best candidates."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def refit(
    mean: Float[Tensor, "b d a"],
    std: Float[Tensor, "b d a"],
    elite: Float[Tensor, "b k d a"],
    usable: Bool[Tensor, "b k"],
    momentum: float,
) -> tuple[Float[Tensor, "b d a"], Float[Tensor, "b d a"]]:
    """Mean and deviation of the usable elites, with the share `momentum` of the old ones.

    The old ones where no elite is usable. The deviation is the population's, over k elites. Source:
    the smoothed update of Pinneri et al. 2020, algorithm 1.
    """
    weight = usable.to(mean)[:, :, None, None]
    count = weight.sum(1).clamp(min=1)
    elite_mean = (weight * elite).sum(1) / count
    variance = (weight * (elite - elite_mean.unsqueeze(1)).square()).sum(1) / count
    any_usable = usable.any(1)[:, None, None]
    new_mean = momentum * mean + (1 - momentum) * elite_mean
    new_std = momentum * std + (1 - momentum) * variance.sqrt()
    return torch.where(any_usable, new_mean, mean), torch.where(any_usable, new_std, std)
