"""Fast reading of the HDF5 file of a Minari data set."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from h5py import h5d, h5f, h5g, h5l, h5p, h5s, h5t
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from mbrl_bilevel.data.rounding import Rounding, to_float32, wide_changes
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import one_line
from mbrl_bilevel.wording import counted

METADATA_CACHE_BYTES = 1 << 21
COMPRESSION = 200  # no data that were driven in an environment shrink so much
ELSEWHERE = "a data set holds its numbers itself: do not trust where it comes from"
LARGEST_CHUNK = 1 << 26  # numbers that HDF5 would unpack at once


@dataclass(frozen=True)
class Episodes:
    """Every episode of a file, one after another; r = steps + episodes rows of observations.

    `observations` holds the columns of one leaf (a whole Box, or one Box of a Dict space) each;
    `rounding` says what float32 leaves of each array, by its name; `changes` holds the changes of
    those leaves alone whose rounded values would spoil them.
    """

    observations: list[Float32[ndarray, "r _"]]
    actions: Float32[ndarray, "b a"]
    rewards: Float32[ndarray, "b"]
    terminations: Bool[ndarray, "b"]
    truncations: Bool[ndarray, "b"]
    lengths: Int64[ndarray, "episodes"]
    rounding: dict[str, Rounding]
    changes: dict[str, Float32[ndarray, "b _"]]


@dataclass
class _Column:
    """Where one array of an episode goes: `extra` is 1 for observations, which have a row more.

    Real numbers are read in float64, so that what float32 loses of them can be told; `epsilon` is
    the relative distance of numbers that passed through float32 or, in the file, a coarser type.
    """

    name: bytes
    buffer: ndarray
    memory_type: h5t.TypeID
    extra: int = 0
    epsilon: float = float(np.finfo(np.float32).eps)

    def take(
        self, lengths: Int64[ndarray, "episodes"]
    ) -> tuple[ndarray, Rounding, Float32[ndarray, "b d"] | None]:
        """The numbers in float32, what was lost, and changes that are worth keeping.

        Those in float64 are given up.
        """
        values, self.buffer = self.buffer, self.buffer[:0]
        starts = np.cumsum(lengths + 1) - lengths - 1 if self.extra else None
        rows = values.reshape(len(values), -1)
        narrow, lost = to_float32(rows, starts, self.epsilon)
        changes = None if starts is None else wide_changes(rows, starts, lost)
        return narrow.reshape(values.shape), lost, changes


def read_episodes(
    path: Path,
    *,
    episodes: int,
    steps: int,
    observation_leaves: Sequence[tuple[str, int]],
    action_dim: int,
) -> Episodes:
    """All episodes of the file by their numbers, in float32.

    An observation leaf is its path below the episode's group and its width. h5py's low-level
    interface with a small cache of HDF5's own headers is four times faster than Minari's iterator
    on short episodes, where opening the arrays is all the work.

    Raises:
        InputError: the file is damaged, holds other episodes, steps or shapes than expected, far
            more numbers than so small a file can, or anything that lies in another file.
    """
    try:
        _require_plausible(path, episodes, steps, observation_leaves, action_dim)
        columns = _columns(episodes, steps, observation_leaves, action_dim)
        lengths = _fill(path, columns, episodes, steps)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{steps} steps of {path} do not fit into memory") from error
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            f"cannot read {path} ({one_line(error).strip(chr(39))}): the file is damaged or "
            "incomplete; delete the data set and download or collect it again"
        ) from error
    terminations, truncations = (_flags(path, column, lengths) for column in columns[-2:])
    narrow, rounding, changes = [], {}, {}
    for column in columns[:-2]:
        name = column.name.decode()
        values, rounding[name], change = column.take(lengths)
        narrow.append(values)
        if change is not None:
            changes[name] = change
    *observations, actions, rewards = narrow
    return Episodes(
        observations, actions, rewards, terminations, truncations, lengths, rounding, changes
    )


def _require_plausible(
    path: Path, episodes: int, steps: int, leaves: Sequence[tuple[str, int]], action_dim: int
) -> None:
    """Before memory is taken for what the metadata promise."""
    needed = 4 * (steps + episodes) * sum(width for _, width in leaves)
    needed += steps * (4 * (action_dim + 1) + 2)
    size = path.stat().st_size
    if needed > COMPRESSION * size:
        raise InputError(
            f"{path} is {size:,} bytes long where its metadata.json promises {needed:,} bytes of "
            "numbers; delete the data set and download or collect it again"
        )


def _columns(
    episodes: int, steps: int, observation_leaves: Sequence[tuple[str, int]], action_dim: int
) -> list[_Column]:
    real = h5t.NATIVE_DOUBLE
    rows = steps + episodes
    return [
        *(
            _Column(name.encode(), np.empty((rows, width)), real, extra=1)
            for name, width in observation_leaves
        ),
        _Column(b"actions", np.empty((steps, action_dim)), real),
        _Column(b"rewards", np.empty(steps), real),
        _Column(b"terminations", np.empty(steps), real),
        _Column(b"truncations", np.empty(steps), real),
    ]


def _open(path: Path) -> h5f.FileID:
    access = h5p.create(h5p.FILE_ACCESS)
    cache = access.get_mdc_config()
    # Headers are used once: HDF5's growing cache of them only costs time to keep.
    cache.set_initial_size = True
    cache.initial_size = cache.min_size = cache.max_size = METADATA_CACHE_BYTES
    access.set_mdc_config(cache)
    return h5f.open(os.fsencode(path), h5f.ACC_RDONLY, access)


def _fill(
    path: Path, columns: Sequence[_Column], episodes: int, steps: int
) -> Int64[ndarray, "episodes"]:
    """Reads each episode into its rows of the columns; returns the episodes' lengths."""
    file = _open(path)
    root = h5g.open(file, b"/")
    _require_episodes(path, root, episodes)
    lengths = np.empty(episodes, np.int64)
    done = 0
    for episode in range(episodes):
        name = b"episode_%d" % episode
        _require_hard_links(path, root, name)
        group = h5g.open(root, name)
        length = -1
        for column in columns:
            _require_hard_links(path, group, column.name)
            array = h5d.open(group, column.name)
            _require_own_numbers(path, array)
            if not episode and array.dtype == np.float16:
                column.epsilon = float(np.finfo(np.float16).eps)
            shape = _shape(array, column)
            if length < 0:
                length = shape[0] - 1 if shape else -1
            expected = (length + column.extra, *column.buffer.shape[1:])
            if shape != expected or length < 0:
                raise InputError(_misfit(path, episode, column, shape, expected))
            start = done + column.extra * episode
            stop = start + length + column.extra
            # HDF5 would write past the end of the buffer.
            if done + length > steps:
                raise InputError(_miscount(path, steps, "more steps"))
            if stop > start:
                _read(path, episode, column, array, column.buffer[start:stop])
        lengths[episode] = length
        done += length
    if done != steps:
        raise InputError(_miscount(path, steps, f"only {counted(done, 'step')}"))
    return lengths


def _require_episodes(path: Path, root: h5g.GroupID, episodes: int) -> None:
    if root.get_num_objs() != episodes:
        raise InputError(
            f"{path} holds {counted(root.get_num_objs(), 'episode')} where its metadata.json "
            f"promises {episodes}; delete the data set and download or collect it again"
        )


def _shape(array: h5d.DatasetID, column: _Column) -> tuple[int, ...]:
    shape: tuple[int, ...] = array.shape
    if len(shape) == 2 > column.buffer.ndim and shape[1] == 1:
        return shape[:1]  # a column of numbers is as good as a row
    return shape


def _require_hard_links(path: Path, group: h5g.GroupID, name: bytes) -> None:
    """A link of another kind may lead to another file, which is none of the data set's business."""
    *groups, last = name.split(b"/")
    for part in (*groups, last):
        if group.links.get_info(part).type != h5l.TYPE_HARD:
            raise InputError(f"{path} has a link at {name.decode()!r}; {ELSEWHERE}")
        if part is not last:
            group = h5g.open(group, part)


def _require_own_numbers(path: Path, array: h5d.DatasetID) -> None:
    """HDF5 can map arrays onto other files, and unpack small chunks to any size."""
    made = array.get_create_plist()
    layout = made.get_layout()
    if layout == h5d.CHUNKED:
        if math.prod(made.get_chunk()) > LARGEST_CHUNK:
            raise InputError(f"{path} has chunks of {made.get_chunk()} numbers, which are too many")
    elif layout == h5d.VIRTUAL or made.get_external_count():
        raise InputError(f"{path} has an array whose numbers lie in another file; {ELSEWHERE}")


def _read(path: Path, episode: int, column: _Column, array: h5d.DatasetID, into: ndarray) -> None:
    try:
        array.read(h5s.ALL, h5s.ALL, into, column.memory_type)
    except OSError:
        if array.get_type().get_class() in (h5t.INTEGER, h5t.FLOAT, h5t.ENUM):
            raise
        raise InputError(
            f"episode {episode} of {path} has {column.name.decode()} of type {array.dtype}: only "
            "real numbers are supported; store them as such"
        ) from None


def _flags(path: Path, column: _Column, lengths: Int64[ndarray, "episodes"]) -> Bool[ndarray, "b"]:
    values = column.buffer
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if len(wrong):
        row, ends = int(wrong[0]), np.cumsum(lengths)
        episode = int(np.searchsorted(ends, row, side="right"))
        raise InputError(
            f"episode {episode} of {path} has {column.name.decode()} of {values[row]:g} at step "
            f"{row - int(ends[episode] - lengths[episode])}, where True or False is needed; "
            "correct it, or remove the episode"
        )
    return values.astype(bool)


def _misfit(
    path: Path, episode: int, column: _Column, shape: tuple[int, ...], expected: tuple[int, ...]
) -> str:
    return (
        f"episode {episode} of {path} has {column.name.decode()} of shape {list(shape)} where "
        f"{list(expected)} is expected (one observation more than actions, rewards and ends; "
        "widths as in the spaces); reshape the array, or remove the episode"
    )


def _miscount(path: Path, steps: int, found: str) -> str:
    return (
        f"{path} holds {found} where its metadata.json promises {steps}; "
        "delete the data set and download or collect it again"
    )
