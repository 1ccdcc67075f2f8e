"""Minari data sets, by id or by folder, as tensors."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from minari.serialization import deserialize_space
from torch import Tensor

from mbrl_bilevel.data.dataset_folder import dataset_folder, is_dataset_id
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.hdf5 import Episodes, read_episodes
from mbrl_bilevel.data.rounding import check_rounding
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import harmless, one_line, parse_json, read_json

ACTION_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Dataset:
    """A data set in memory: its transitions and what its metadata says of them.

    `env_spec` is None where the metadata names no environment. `observation_names` is None for a
    plain Box; for a Dict of Boxes it names the columns in the order of the flattened observation
    (that of `gymnasium.spaces.flatten` in the recording environment), for example "position[0]".
    """

    id: str
    env_spec: EnvSpec | None
    transitions: Transitions
    observation_low: Float[Tensor, "o"]
    observation_high: Float[Tensor, "o"]
    action_low: Float[Tensor, "a"]
    action_high: Float[Tensor, "a"]
    observation_names: tuple[str, ...] | None
    metadata: dict[str, Any]

    @property
    def env_id(self) -> str | None:
        """The id of the environment that the metadata name."""
        return None if self.env_spec is None else self.env_spec.id

    @property
    def action_box(self) -> tuple[list[float], list[float]]:
        """Lowest and highest actions, by the word of the metadata."""
        return self.action_low.tolist(), self.action_high.tolist()


def load_dataset(dataset: str | Path, *, download: bool = False) -> Dataset:
    """Every transition of a Minari data set, given by its id or by its folder.

    Observations must be a flat Box, or a Dict of flat Boxes, which is flattened; actions must be a
    flat Box. Actions outside their box, and ends before the last step of an episode, are kept, with
    a UserWarning. All tensors are float32 on the CPU, in the order of episodes and time; where that
    rounds off what there is to learn, because of an offset say, a UserWarning tells, and
    `Transitions.recorded_change` holds the changes of observations as they were recorded.

    Raises:
        InputError: there is no such data set (or no network to fetch it from with `download`), its
            spaces are of another kind, its file or env_spec is damaged, or it holds NaN, infinite
            values, observations whose offset leaves nothing of them in float32, or fewer than two
            transitions.
    """
    folder = dataset_folder(dataset, download=download)
    metadata = _metadata(folder)
    name = str(metadata.get("dataset_id"))
    if not is_dataset_id(name):
        name = str(dataset)
    observations = _description(metadata, "observation_space", folder)
    leaves = list(_boxes(observations, name, "observations", folder))
    action_space = _space(_description(metadata, "action_space", folder), folder)
    if not _is_flat_box(action_space):
        raise InputError(_unsupported(name, "actions", action_space))
    episodes, steps = (
        _count(metadata, "total_episodes", folder),
        _count(metadata, "total_steps", folder),
    )
    if steps < 2:
        raise InputError(
            f"data set {name!r} holds {episodes} episodes and {steps} transitions, too few to "
            "learn from; collect at least 2 transitions"
        )
    data = read_episodes(
        folder / "main_data.hdf5",
        episodes=episodes,
        steps=steps,
        observation_leaves=[(path, box.shape[0]) for path, box in leaves],
        action_dim=action_space.shape[0],
    )
    _require_finite(data, name, [path for path, _ in leaves])
    check_rounding(f"data set {name!r}", data.rounding, data.changes)
    transitions = _transitions(data, [path for path, _ in leaves])
    _warn_of_actions_outside(transitions.action, action_space, name)
    _warn_of_ends_inside(transitions, name)
    return Dataset(
        id=name,
        env_spec=_env_spec(metadata, folder),
        transitions=transitions,
        observation_low=_bound([box.low for _, box in leaves]),
        observation_high=_bound([box.high for _, box in leaves]),
        action_low=_bound([action_space.low]),
        action_high=_bound([action_space.high]),
        observation_names=_names(leaves) if observations.get("type") == "Dict" else None,
        metadata=metadata,
    )


def _metadata(folder: Path) -> dict[str, Any]:
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


def _names(leaves: list[tuple[str, spaces.Box]]) -> tuple[str, ...]:
    short = [(path.removeprefix("observations/"), box.shape[0]) for path, box in leaves]
    return tuple(f"{path}[{i}]" for path, width in short for i in range(width))


def _bound(parts: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def _require_finite(data: Episodes, name: str, leaves: list[str]) -> None:
    columns = [
        *zip(leaves, data.observations, [1] * len(leaves), strict=True),
        ("actions", data.actions, 0),
        ("rewards", data.rewards, 0),
    ]
    for path, values, extra in columns:
        finite = np.isfinite(values)
        if finite.all():
            continue
        row = int(np.argmin(finite.reshape(len(values), -1).all(1)))
        ends = np.cumsum(data.lengths + extra)
        episode = int(np.searchsorted(ends, row, side="right"))
        step = row - int(ends[episode] - data.lengths[episode] - extra)
        bad = np.asarray(values[row]).reshape(-1)
        value = bad[~np.isfinite(bad)][0]
        raise InputError(
            f"data set {name!r} has {path} = {value} at episode {episode}, step {step}; "
            "remove or mend that episode (values must be finite in float32)"
        )


def _transitions(data: Episodes, leaves: list[str]) -> Transitions:
    observations = data.observations
    rows = np.concatenate(observations, axis=1) if len(observations) > 1 else observations[0]
    ends = np.cumsum(data.lengths + 1)
    last, first = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    last[ends - 1] = True
    first[ends - data.lengths - 1] = True
    change = None
    if data.changes:
        narrow = zip(leaves, observations, strict=True)
        parts = [data.changes.get(path, x[~first] - x[~last]) for path, x in narrow]
        change = torch.from_numpy(np.concatenate(parts, axis=1))
    return Transitions(
        observation=torch.from_numpy(rows[~last]),
        action=torch.from_numpy(data.actions),
        reward=torch.from_numpy(data.rewards),
        next_observation=torch.from_numpy(rows[~first]),
        terminated=torch.from_numpy(data.terminations),
        truncated=torch.from_numpy(data.truncations),
        episode=torch.from_numpy(np.repeat(np.arange(len(data.lengths)), data.lengths)),
        recorded_change=change,
    )


def _warn_of_actions_outside(action: Tensor, space: spaces.Box, name: str) -> None:
    excess = torch.maximum(action - _bound([space.high]), _bound([space.low]) - action).amax(-1)
    outside = int((excess > ACTION_TOLERANCE).sum())
    if outside:
        warnings.warn(
            f"data set {name!r} has {outside} of {len(action)} actions outside their box, by at "
            f"most {float(excess.max()):.3g}; they are kept as they are",
            stacklevel=3,
        )


def _warn_of_ends_inside(data: Transitions, name: str) -> None:
    ended = (data.terminated | data.truncated)[:-1] & (data.episode[1:] == data.episode[:-1])
    inside = torch.nonzero(ended).squeeze(-1)
    if len(inside):
        row = int(inside[0])
        episode = int(data.episode[row])
        step = row - int((data.episode < episode).sum())
        warnings.warn(
            f"data set {name!r} has {len(inside)} terminations or truncations before the last step "
            f"of an episode, for example at episode {episode}, step {step}: what follows is "
            "learned as the next step of the same episode; store each episode by itself",
            stacklevel=3,
        )
