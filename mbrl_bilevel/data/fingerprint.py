"""What a data set holds, in a few numbers that another day's can be compared with."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from mbrl_bilevel.data.minari import Dataset
from mbrl_bilevel.files import parse_json

ROWS = ("episodes", "steps", "lengths", "observations", "actions", "rewards", "ends")
DESCRIPTION = {
    "spaces": ("observation_space", "action_space"),
    "environment": ("env_spec",),
}  # parts of the fingerprint, by the keys of metadata.json that they stand for


def fingerprint(dataset: Dataset) -> dict[str, int | str]:
    """Counts and checksums of a data set's content, as it is learned from.

    Where it lies, when it was written, its id, author and the like are left out: a copy has the
    same fingerprint. Numbers that are the same in float32 are the same, unless the loader keeps
    their changes as they were recorded.
    """
    rows = dataset.transitions
    observed = [rows.observation, rows.next_observation]
    if rows.recorded_change is not None:
        observed.append(rows.recorded_change)
    lengths = rows.episode.unique_consecutive(return_counts=True)[1]
    found: dict[str, int | str] = {
        "episodes": len(lengths),
        "steps": len(rows),
        "lengths": _checksum(lengths),
        "observations": _checksum(*observed),
        "actions": _checksum(rows.action),
        "rewards": _checksum(rows.reward),
        "ends": _checksum(rows.terminated, rows.truncated),
    }
    for part, keys in DESCRIPTION.items():
        said = json.dumps([_plain(dataset.metadata.get(key)) for key in keys], sort_keys=True)
        found[part] = _hash(said.encode())
    return found


def changes(before: Mapping[str, Any], now: Mapping[str, int | str]) -> list[str]:
    """How a data set differs from what it was, in words, part by part; empty if it is the same."""
    counts = [name for name in ("episodes", "steps") if before.get(name) != now[name]]
    if counts:
        return [f"{now[name]:,} {name} instead of {before.get(name):,}" for name in counts]
    return [f"other {name}" for name in now if before.get(name) != now[name]]


def first_episodes(dataset: Dataset, count: int) -> Dataset:
    """The same data set without the episodes after the first `count`."""
    rows = dataset.transitions
    return replace(dataset, transitions=rows[rows.episode < count])


def same_rows(before: Mapping[str, Any], now: Mapping[str, int | str]) -> bool:
    """Whether the transitions are the same, whatever is said of spaces and environment."""
    return all(before.get(name) == now[name] for name in ROWS)


def is_fingerprint(value: Any) -> bool:
    """Whether a value out of a file has the parts of a fingerprint."""
    return (
        isinstance(value, dict)
        and value.keys() == {*ROWS, *DESCRIPTION}
        and all(isinstance(value[name], int) for name in ("episodes", "steps"))
    )


def _checksum(*columns: Tensor) -> str:
    return _hash(*(column.cpu().contiguous().numpy().data for column in columns))


def _plain(text: Any) -> Any:
    """What a text of JSON says, in which the order of keys does not count."""
    try:
        return parse_json(text)
    except (TypeError, ValueError):
        return text


def _hash(*parts: bytes | memoryview) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
