"""Standardisation of tensors by the mean and deviation of the training part."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.wording import counted

CONSTANT_BELOW = 1e-6


def is_constant(values: Float[Tensor, "b d"]) -> Bool[Tensor, "d"]:
    """Which dimensions are constant over the rows, as far as float32 can tell.

    They have a deviation of at most 1e-6 of their largest absolute value.
    """
    wide = values.double()
    return wide.std(0, correction=0) <= CONSTANT_BELOW * wide.abs().amax(0)


class Standardizer(nn.Module):
    """(value - mean) / std per dimension; mean 0 and std 1 until fitted.

    Fit it on the training part only. `mean` and `std` [d] are buffers, saved with the model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("std", torch.ones(dims))

    @torch.no_grad()
    def fit(self, values: Float[Tensor, "b d"]) -> "Standardizer":
        """Takes mean and population deviation of `values`, computed in float64; returns itself.

        The std of a dimension that is constant becomes 1, so that rounding noise is never blown
        up.

        Raises:
            InputError: no rows, another number of dimensions, or values that are not finite.
        """
        if values.shape[0] == 0 or values.shape[1] != self.mean.shape[0]:
            raise InputError(
                f"cannot standardise {counted(self.mean.shape[0], 'dimension')} by values of shape "
                f"{list(values.shape)}; give at least one row of that width"
            )
        wide = values.double()
        mean, std = wide.mean(0), wide.std(0, correction=0)
        if not bool(torch.isfinite(mean + std).all()):
            raise InputError("cannot standardise by values that hold NaN or Inf; remove them first")
        self.mean.copy_(mean)
        self.std.copy_(torch.where(is_constant(values), 1.0, std))
        return self

    def standardize(self, values: Float[Tensor, "*s d"]) -> Float[Tensor, "*s d"]:
        """From own units, of any dtype, to units of standard deviations in the dtype of `mean`."""
        return ((values - self.mean) / self.std).to(self.mean.dtype)

    def restore(self, values: Float[Tensor, "*s d"]) -> Float[Tensor, "*s d"]:
        """From units of standard deviations back to own units."""
        return values * self.std + self.mean
