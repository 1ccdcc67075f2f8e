"""Minari data sets, by id or by folder, as tensors."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.data.dataset_folder import dataset_folder
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.hdf5 import Episodes, read_episodes
from mbrl_bilevel.data.metadata import Metadata, read_metadata
from mbrl_bilevel.data.rounding import check_rounding
from mbrl_bilevel.data.tensor_cache import TensorCache, cache_folder
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.wording import counted

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


def load_dataset(dataset: str | Path, *, download: bool = False, cache: bool = True) -> Dataset:
    """Every transition of a Minari data set, given by its id or by its folder.

    Observations must be a flat Box, or a Dict of flat Boxes, which is flattened; actions must be a
    flat Box. Actions outside their box, and ends before the last step of an episode, are kept, with
    a UserWarning. All tensors are float32 on the CPU, in the order of episodes and time; where that
    rounds off what there is to learn, because of an offset say, a UserWarning tells, and
    `Transitions.recorded_change` holds the changes of observations as they were recorded.

    With `cache` the tensors of a data set are kept in the user's cache folder, and mapped into
    memory when it is loaded again; see `data.tensor_cache`. They are equal to the bit.

    Raises:
        InputError: there is no such data set (or no network to fetch it from with `download`), its
            spaces are of another kind, its file or env_spec is damaged, or it holds NaN, infinite
            values, observations whose offset leaves nothing of them in float32, or fewer than two
            transitions.
    """
    folder = dataset_folder(dataset, download=download)
    found = read_metadata(folder, str(dataset))
    name = found.id
    if found.steps < 2:
        raise InputError(
            f"data set {name!r} holds {counted(found.episodes, 'episode')} and "
            f"{counted(found.steps, 'transition')}, too few to learn from; collect at least 2 "
            "transitions"
        )
    transitions, doubts = _kept(folder, found) if cache else _read(folder, found)
    for doubt in doubts:
        warnings.warn(doubt, stacklevel=2)
    return Dataset(
        id=name,
        env_spec=found.env_spec,
        transitions=transitions,
        observation_low=_bound([box.low for _, box in found.observations]),
        observation_high=_bound([box.high for _, box in found.observations]),
        action_low=_bound([found.actions.low]),
        action_high=_bound([found.actions.high]),
        observation_names=found.observation_names,
        metadata=found.values,
    )


def _kept(folder: Path, found: Metadata) -> tuple[Transitions, list[str]]:
    """From the cache where it is good, else from the file and into the cache."""
    kept_in = cache_folder()
    if kept_in is None or not (folder / "main_data.hdf5").is_file():
        return _read(folder, found)  # which says what is missing
    cache = TensorCache(folder, kept_in)
    if not cache.worth_it:
        return _read(folder, found)
    kept = cache.read()
    if kept is None:
        kept = _read(folder, found)
        cache.write(*kept)
    return kept


def _read(folder: Path, found: Metadata) -> tuple[Transitions, list[str]]:
    """The transitions, checked, and what is doubtful about them."""
    name, leaves = found.id, [path for path, _ in found.observations]
    data = read_episodes(
        folder / "main_data.hdf5",
        episodes=found.episodes,
        steps=found.steps,
        observation_leaves=[(path, box.shape[0]) for path, box in found.observations],
        action_dim=found.actions.shape[0],
    )
    _require_finite(data, name, leaves)
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        check_rounding(f"data set {name!r}", data.rounding, data.changes)
        transitions = _transitions(data, leaves)
        _warn_of_actions_outside(transitions.action, found.actions, name)
        _warn_of_ends_inside(transitions, name)
    return transitions, [str(doubt.message) for doubt in doubts]


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
            f"data set {name!r} has {outside} of {counted(len(action), 'action')} outside their "
            f"box, by at most {float(excess.max()):.3g}; they are kept as they are",
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
            f"data set {name!r} has {counted(len(inside), 'end')} (terminated or truncated) before "
            f"the last step of an episode, for example at episode {episode}, step {step}: what "
            "follows is learned as the next step of the same episode; store each episode by itself",
            stacklevel=3,
        )
