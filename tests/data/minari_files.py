"""Small Minari data sets of made-up numbers, and ways to damage them."""

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.errors import InputError

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float64)
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)


def observations_of(space: spaces.Space, rows: int, rng: np.random.Generator) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: observations_of(sub, rows, rng) for key, sub in space.spaces.items()}
    if isinstance(space, spaces.Box) and space.dtype != np.uint8:
        return rng.standard_normal((rows, *space.shape)).astype(space.dtype)
    samples = [space.sample() for _ in range(rows)]
    return (
        tuple(np.stack(part) for part in zip(*samples, strict=True))
        if isinstance(space, spaces.Tuple)
        else (samples if isinstance(space, spaces.Text) else np.stack(samples))
    )


def episode(
    steps: int,
    rng: np.random.Generator,
    observation_space: spaces.Space = BOX,
    action_space: spaces.Space = ACTIONS,
    terminated: bool = False,
) -> EpisodeBuffer:
    ends = np.arange(steps) == steps - 1
    if isinstance(action_space, spaces.Box):
        actions = rng.uniform(-1, 1, (steps, *action_space.shape)).astype(np.float32)
    else:
        actions = np.array([action_space.sample() for _ in range(steps)])
    return EpisodeBuffer(
        observations=observations_of(observation_space, steps + 1, rng),
        actions=actions,
        rewards=rng.standard_normal(steps),
        terminations=ends & terminated,
        truncations=ends & (not terminated),
    )


def write(
    dataset_id: str,
    episodes: Sequence[EpisodeBuffer],
    observation_space: spaces.Space = BOX,
    action_space: spaces.Space = ACTIONS,
    env: str | None = None,
) -> Path:
    """Writes the episodes with Minari itself; returns the folder of the data files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            list(episodes),
            env=gymnasium.spec(env) if env else None,
            observation_space=observation_space,
            action_space=action_space,
        )
    return Path(dataset.storage.data_path)


def edit_metadata(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        metadata = json.loads((folder / "metadata.json").read_text())
        metadata.update(changes)
        kept = {key: value for key, value in metadata.items() if value is not None}
        (folder / "metadata.json").write_text(json.dumps(kept))

    return damage


def require_refused(
    sound: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    """A copy of a data set loads, and once damaged is refused in one line that holds `message`."""
    folder = tmp_path / "copy"
    shutil.copytree(sound, folder)
    load_dataset(folder)
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(folder)
    assert "\n" not in str(caught.value)
