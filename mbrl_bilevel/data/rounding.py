"""What float32 leaves of numbers that were recorded in float64, behind an offset say."""

import warnings
from collections.abc import Container, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64
from numpy import ndarray

from mbrl_bilevel.errors import InputError

REFUSED = 0.01  # of a value's variance: rounding, where values take some ten levels only
NOTICED = 1e-3  # of the variance of a change (or of a reward, an action): rounding
CONSTANT = 1e-13  # of the values: what smaller deviations are is float64's own rounding
CHUNK = 2_048  # rows, so that they stay in the cache


class Rounding(NamedTuple):
    """Of each dimension of an array, in its own units.

    size: root mean square of its values. change: that of the change from a row to the next, within
    episodes; None of arrays of which no changes are learned. resolution: from float to float at
    `size`. exact: whether float32 holds every value as it was recorded.
    """

    size: Float64[ndarray, "d"]
    deviation: Float64[ndarray, "d"]
    change: Float64[ndarray, "d"] | None
    resolution: Float64[ndarray, "d"]
    exact: Bool[ndarray, "d"]


@np.errstate(over="ignore", invalid="ignore")
def to_float32(
    values: Float64[ndarray, "r d"], starts: ndarray | None, epsilon: float
) -> tuple[Float32[ndarray, "r d"], Rounding]:
    """The values in float32, and what that does to them.

    `starts` are the rows that begin an episode (None: changes do not count); `epsilon` is that of
    the type that the numbers pass through, float32's or a coarser one of the file.
    """
    narrow = np.empty(values.shape, np.float32)
    count, shift = max(len(values), 1), values[:1]
    total, square, change, lost = (np.zeros(values.shape[1]) for _ in range(4))
    within = np.ones(len(values))  # 0 where a row begins an episode: that is no change
    within[0 if starts is None else starts] = 0.0
    for start in range(0, len(values), CHUNK):
        rows = values[start : start + CHUNK]
        narrow[start : start + CHUNK] = rows
        error, centred = rows - narrow[start : start + CHUNK], rows - shift
        lost += np.einsum("rd,rd->d", error, error)
        total += np.ones(len(rows)) @ centred
        square += np.einsum("rd,rd->d", centred, centred)
        if starts is not None:
            first, stop = max(start, 1), start + CHUNK
            steps = values[first:stop] - values[first - 1 : start + len(rows) - 1]
            change += np.einsum("rd,rd,r->d", steps, steps, within[first:stop])
    mean = total / count
    deviation = np.sqrt(np.maximum(square / count - mean * mean, 0.0))
    size = np.hypot(mean + (shift[0] if len(values) else 0.0), deviation)
    moved = None if starts is None else np.sqrt(change / max(within.sum(), 1.0))
    resolution = epsilon * np.exp2(np.floor(np.log2(np.maximum(size, 1e-300))))
    return narrow, Rounding(size, deviation, moved, resolution, lost == 0)


@np.errstate(over="ignore", invalid="ignore")
def wide_changes(
    values: Float64[ndarray, "r d"], starts: ndarray, rounding: Rounding
) -> Float32[ndarray, "b d"] | None:
    """Changes from row to row within episodes, taken in float64 and then cast.

    None where those of the rows in float32 are as good: no rounding is noticed in them, or float32
    holds the rows as they were recorded.
    """
    if not (_is_noticed(rounding) & ~rounding.exact).any():
        return None
    changes = np.empty((max(len(values) - 1, 0), values.shape[1]), np.float32)
    np.subtract(values[1:], values[:-1], out=changes, casting="same_kind")
    return np.delete(changes, starts[starts > 0] - 1, axis=0)


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def check_rounding(source: str, arrays: Mapping[str, Rounding], wide: Container[str] = ()) -> None:
    """Warns of dimensions whose rounding is noticed in what is learned; refuses those it drowns.

    `source` is where the numbers come from, as a sentence begins with it: "data set 'x'". `wide`
    are the arrays whose changes are kept as `wide_changes` gives them.

    Raises:
        InputError: an observation of which float32 leaves but a few levels.
    """
    noticed = [found for path, rounding in arrays.items() for found in _noticed(path, rounding)]
    kept = [path in wide for path, rounding in arrays.items() if _is_noticed(rounding).any()]
    for path, rounding in arrays.items():
        share = np.square(rounding.resolution / rounding.deviation) / 12
        moves = rounding.deviation > CONSTANT * rounding.size
        if rounding.change is not None:
            for d in np.flatnonzero(moves & ~rounding.exact & (share > REFUSED)):
                raise InputError(
                    f"{source} has {path}[{d}] of values of about {rounding.size[d]:.4g}, "
                    f"which deviate by {rounding.deviation[d]:.2g} where float32 has steps of "
                    f"{rounding.resolution[d]:.2g}: what it does is lost; subtract its offset, "
                    "in data and by a wrapper in the environment"
                )
    if noticed:
        more = f" (and {len(noticed) - 3} more)" if len(noticed) > 3 else ""
        effect = "models are trained and evaluated on what is left"
        if any(kept):
            effect = "changes of observations are learned and evaluated over one step as recorded, "
            effect += "but the observations that models see and predict are rounded"
        if any(kept) and not all(kept):
            effect += ", as is the rest"
        warnings.warn(
            f"{source}: float32 rounds {'; '.join(noticed[:3])}{more}: {effect}; subtract "
            "offsets, in data and by a wrapper in the environment",
            stacklevel=3,
        )


class FirstRows:
    """Collects the first observations of a real environment, to check once what float32 leaves.

    Raises (`add`):
        InputError: as `check_rounding`.
    """

    def __init__(self, source: str, count: int = 100) -> None:
        self.source, self.count = source, count
        self._rows: list[ndarray] = []
        self._starts: list[int] = []

    def add(self, observation: ndarray, *, start: bool) -> None:
        """Takes an observation [o] as the environment returned it; `start` of an episode."""
        if len(self._rows) >= self.count:
            return
        if start:
            self._starts.append(len(self._rows))
        self._rows.append(np.asarray(observation, np.float64))
        if len(self._rows) == self.count:
            epsilon = float(np.finfo(np.float32).eps)
            _, found = to_float32(np.stack(self._rows), np.array(self._starts), epsilon)
            check_rounding(self.source, {"observations": found})


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def _is_noticed(rounding: Rounding) -> Bool[ndarray, "d"]:
    """Dimensions in which rounding is more than NOTICED of the variance of what is learned."""
    if rounding.change is not None:  # the error of two values
        share, size = np.square(rounding.resolution / rounding.change) / 6, rounding.change
    else:
        share, size = np.square(rounding.resolution / rounding.deviation) / 12, rounding.deviation
    return (size > CONSTANT * rounding.size) & (share > NOTICED)


def _noticed(path: str, rounding: Rounding) -> Iterator[str]:
    what, size = "changes", rounding.change
    if size is None:
        what, size = "deviations", rounding.deviation
    for d in np.flatnonzero(_is_noticed(rounding)):
        yield (
            f"{what} of {path}[{d}] of about {size[d]:.2g} to steps of {rounding.resolution[d]:.2g}"
            f" at values of about {rounding.size[d]:.4g}"
        )
