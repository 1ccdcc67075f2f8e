"""What float32 leaves of numbers that were recorded in float64, behind an offset say."""

import warnings
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from mbrl_bilevel.errors import InputError

REFUSED = 0.01  # of a value's variance: rounding, where values take some ten levels only
NOTICED = 1e-3  # of the variance of a change (or of a reward, an action): rounding
CONSTANT = 1e-13  # of the largest value: what smaller deviations are is float64's own rounding
CHUNK = 65_536


class Rounding(NamedTuple):
    """Of each dimension of an array, in its own units.

    change: root mean square of the change from a row to the next, within episodes; None of arrays
    of which no changes are learned. resolution: between neighbouring floats at the largest value.
    exact: whether float32 holds every value as it was recorded.
    """

    largest: Float64[ndarray, "d"]
    deviation: Float64[ndarray, "d"]
    change: Float64[ndarray, "d"] | None
    resolution: Float64[ndarray, "d"]
    exact: Bool[ndarray, "d"]


@np.errstate(over="ignore", invalid="ignore")
def rounding_of(
    values: Float64[ndarray, "r d"], breaks: ndarray | None, epsilon: float
) -> Rounding:
    """Takes the measures of an array in float64.

    `breaks` are the rows that begin an episode (None: changes do not count); `epsilon` is that of
    the type that the numbers pass through, float32's or a coarser one of the file.
    """
    count, shift = max(len(values), 1), values[:1]
    largest, total, square, change = (np.zeros(values.shape[1]) for _ in range(4))
    exact = np.ones(values.shape[1], bool)
    steps = np.ones(max(len(values) - 1, 0), bool)
    if breaks is not None:
        steps[breaks[breaks > 0] - 1] = False
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK + 1]  # with the first row of the next chunk
        rows = part[:CHUNK]
        largest = np.maximum(largest, np.abs(rows).max(0))
        total += (rows - shift).sum(0)
        square += np.square(rows - shift).sum(0)
        exact &= (rows.astype(np.float32) == rows).all(0)
        if breaks is not None:
            change += np.square(np.diff(part, axis=0)[steps[start : start + CHUNK]]).sum(0)
    deviation = np.sqrt(np.maximum(square / count - np.square(total / count), 0.0))
    resolution = epsilon * np.exp2(np.floor(np.log2(np.maximum(largest, 1e-300))))
    moved = None if breaks is None else np.sqrt(change / max(int(steps.sum()), 1))
    return Rounding(largest, deviation, moved, resolution, exact)


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def check_rounding(name: str, arrays: Mapping[str, Rounding]) -> None:
    """Warns of dimensions whose rounding is noticed in what is learned; refuses those it drowns.

    Raises:
        InputError: an observation of which float32 leaves but a few levels.
    """
    noticed = [found for path, rounding in arrays.items() for found in _noticed(path, rounding)]
    for path, rounding in arrays.items():
        share = np.square(rounding.resolution / rounding.deviation) / 12
        moves = rounding.deviation > CONSTANT * rounding.largest
        if rounding.change is not None:
            for d in np.flatnonzero(moves & ~rounding.exact & (share > REFUSED)):
                raise InputError(
                    f"data set {name!r} has {path}[{d}] of values up to {rounding.largest[d]:.4g}, "
                    f"which deviate by {rounding.deviation[d]:.2g} where float32 has steps of "
                    f"{rounding.resolution[d]:.2g}: what it does is lost; subtract its offset, "
                    "in the data and by a wrapper in the environment"
                )
    if noticed:
        more = f" (and {len(noticed) - 3} more)" if len(noticed) > 3 else ""
        warnings.warn(
            f"data set {name!r}: float32 rounds {'; '.join(noticed[:3])}{more}: models learn and "
            "are judged on what is left; subtract offsets, in the data and by a wrapper in the "
            "environment",
            stacklevel=3,
        )


def _noticed(path: str, rounding: Rounding) -> Iterator[str]:
    """Dimensions in which rounding is more than NOTICED of the variance of what is learned."""
    if rounding.change is not None:  # the error of two values
        share = np.square(rounding.resolution / rounding.change) / 6
        what, size = "changes", rounding.change
    else:
        share = np.square(rounding.resolution / rounding.deviation) / 12
        what, size = "deviations", rounding.deviation
    for d in np.flatnonzero((size > CONSTANT * rounding.largest) & (share > NOTICED)):
        yield (
            f"{what} of {path}[{d}] of about {size[d]:.2g} to steps of {rounding.resolution[d]:.2g}"
            f" at values up to {rounding.largest[d]:.4g}"
        )
