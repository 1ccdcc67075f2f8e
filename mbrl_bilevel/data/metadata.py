"""metadata.json of a Minari data set: its spaces, counts and environment, checked."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces
from minari.serialization import deserialize_space

from mbrl_bilevel.data.dataset_folder import is_dataset_id
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import harmless, one_line, parse_json, read_json


@dataclass(frozen=True)
class Metadata:
    """The metadata of a data set with flat observations and actions.

    `observations` holds each flat Box of the observation space with its path below an episode's
    group, in the order of the flattened observation. `values` is the whole JSON object.
    """

    id: str
    observations: tuple[tuple[str, spaces.Box], ...]
    actions: spaces.Box
    observation_names: tuple[str, ...] | None
    episodes: int
    steps: int
    env_spec: EnvSpec | None
    values: dict[str, Any]


def read_metadata(folder: Path, default_id: str) -> Metadata:
    """The metadata of the data set in a folder; `default_id` names one that has no valid id.

    Raises:
        InputError: the file is missing, damaged or of another format, or its spaces are not flat.
    """
    values = _read(folder)
    name = str(values.get("dataset_id"))
    if not is_dataset_id(name):
        name = default_id
    observations = _description(values, "observation_space", folder)
    leaves = tuple(_boxes(observations, name, "observations", folder))
    actions = _space(_description(values, "action_space", folder), folder)
    if not _is_flat_box(actions):
        raise InputError(_unsupported(name, "actions", actions))
    return Metadata(
        id=name,
        observations=leaves,
        actions=actions,
        observation_names=_names(leaves) if observations.get("type") == "Dict" else None,
        episodes=_count(values, "total_episodes", folder),
        steps=_count(values, "total_steps", folder),
        env_spec=_env_spec(values, folder),
        values=values,
    )


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "metadata.json"
    try:
        metadata = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {path} ({error}): the data set is incomplete; "
            "delete it and download or collect it again"
        ) from error
    if not isinstance(metadata, dict):
        raise InputError(f"{path} holds no JSON object; download or collect the data set again")
    if metadata.get("data_format", "hdf5") != "hdf5":
        raise InputError(
            f"{path} says data_format {metadata['data_format']!r}; only hdf5 is supported"
        )
    return metadata


def _count(metadata: dict[str, Any], key: str, folder: Path) -> int:
    count = metadata.get(key)
    if not isinstance(count, int) or count < 0:
        raise InputError(
            f"{folder / 'metadata.json'} has {key} = {count!r} where a count is expected; "
            "download or collect the data set again"
        )
    return count


def _description(metadata: dict[str, Any], key: str, folder: Path) -> dict[str, Any]:
    """A space as the metadata describe it, which keep the order of a Dict's keys."""
    if key not in metadata:
        raise InputError(
            f"{folder / 'metadata.json'} has no {key}; download or collect the data set again with "
            "Minari 0.5 or later"
        )
    try:
        return dict(parse_json(metadata[key]))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{folder / 'metadata.json'} has a damaged {key} ({one_line(error)})"
        ) from error


def _space(description: dict[str, Any], folder: Path) -> spaces.Space:
    try:
        return deserialize_space(description)
    except Exception as error:  # whatever a space makes of a damaged description
        raise InputError(
            f"{folder / 'metadata.json'} has a damaged space {json.dumps(description)[:80]} "
            f"({type(error).__name__} {error}); download or collect the data set again"
        ) from error


def _env_spec(metadata: dict[str, Any], folder: Path) -> EnvSpec | None:
    """None where no environment is named, or by a name that could do harm.

    Raises:
        InputError: arguments or wrappers that cannot be read: they may not be passed over.
    """
    text = metadata.get("env_spec")
    try:
        if not harmless(parse_json(text)["id"]):  # type: ignore[arg-type]
            return None
    except (KeyError, TypeError, ValueError):
        return None
    try:
        return EnvSpec.from_gymnasium(str(text))
    except ValueError as error:
        raise InputError(
            f"{folder / 'metadata.json'} has a damaged env_spec ({error}); download or collect the "
            "data set again"
        ) from None


def _is_flat_box(space: spaces.Space) -> TypeGuard[spaces.Box]:
    return isinstance(space, spaces.Box) and len(space.shape) == 1 and space.shape[0] > 0


def _boxes(
    description: dict[str, Any], name: str, path: str, folder: Path
) -> Iterator[tuple[str, spaces.Box]]:
    """The flat Boxes of a space, each with its path below the episode's group."""
    parts = description.get("subspaces")
    if description.get("type") == "Dict" and isinstance(parts, dict) and parts:
        for key, part in parts.items():
            if not (harmless(f"{path}/{key}") and isinstance(part, dict)):
                raise InputError(
                    f"{folder / 'metadata.json'} has a damaged part of {path[:80]!r}: parts are "
                    "spaces, whose names hold neither $ nor control characters"
                )
            yield from _boxes(part, name, f"{path}/{key}", folder)
        return
    space = _space(description, folder)
    if not _is_flat_box(space):
        raise InputError(_unsupported(name, path, space))
    yield path, space


def _unsupported(name: str, path: str, space: spaces.Space) -> str:
    what = f"{type(space).__name__} {path}"
    if isinstance(space, spaces.Box):
        kind = "image" if space.dtype == np.uint8 and len(space.shape) in (2, 3) else "Box"
        what = f"{kind} {path} of shape {list(space.shape)}"
    return (
        f"data set {name!r} has {what}; only flat observations (Box with one axis, or a Dict of "
        "them) and flat Box actions are supported"
    )


def _names(leaves: tuple[tuple[str, spaces.Box], ...]) -> tuple[str, ...]:
    short = [(path.removeprefix("observations/"), box.shape[0]) for path, box in leaves]
    return tuple(f"{path}[{i}]" for path, width in short for i in range(width))
