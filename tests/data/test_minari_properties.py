"""Data sets of any spaces and types are loaded as Minari's own iterator gives them."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import minari
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from minari.data_collector import EpisodeBuffer

from mbrl_bilevel.data.minari import load_dataset
from tests.data.minari_files import write
from tests.hypothesis_settings import examples

NAMES = st.sampled_from(["z", "b", "observation", "desired_goal", "x y", "ä", "10", "9"])
TYPES = st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8])


def box(size: int, dtype: Any) -> spaces.Box:
    low, high = (0, 200) if np.dtype(dtype).kind in "iu" else (-np.inf, np.inf)
    return spaces.Box(low, high, (size,), dtype)


BOXES = st.builds(box, st.integers(1, 3), TYPES)
SPACES = BOXES | st.recursive(
    st.dictionaries(NAMES, BOXES, min_size=1, max_size=3).map(spaces.Dict),
    lambda inner: st.dictionaries(NAMES, inner | BOXES, min_size=1, max_size=3).map(spaces.Dict),
    max_leaves=3,
)


def numbers(space: spaces.Space, rows: int, offset: float, rng: np.random.Generator) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: numbers(part, rows, offset, rng) for key, part in space.spaces.items()}
    values = (offset + 10 * rng.standard_normal((rows, *(space.shape or ())))).clip(0, 200)
    return values.astype(space.dtype)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{path}/{key}" if path else key)
    else:
        yield path, value


@pytest.mark.situation("right")
@examples(25)
@given(
    space=SPACES,
    actions=st.integers(1, 3),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=12).filter(lambda n: sum(n) >= 2),
    reward=st.sampled_from([np.float64, np.float32, np.int64, bool]),
    column=st.booleans(),
    flag=st.sampled_from([bool, np.uint8, np.int64, np.float64]),
    offset=st.sampled_from([0.0, 20.0, 100.0]),
    seed=st.integers(0, 2**31),
)
def test_any_data_set_is_loaded_as_minari_gives_it(
    space: spaces.Space,
    actions: int,
    lengths: list[int],
    reward: Any,
    column: bool,
    flag: Any,
    offset: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    episodes = []
    for length in lengths:
        ends = (np.arange(length) == length - 1) & (rng.random() < 0.5)
        paid = rng.standard_normal(length).astype(reward)
        episodes.append(
            EpisodeBuffer(
                observations=numbers(space, length + 1, offset, rng),
                actions=rng.uniform(-1, 1, (length, actions)).astype(np.float32),
                rewards=paid[:, None] if column else paid,
                terminations=ends.astype(flag),
                truncations=(~ends & (np.arange(length) == length - 1)).astype(flag),
            )
        )
    with (
        TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of what float32 rounds off
        patch.setenv("MINARI_DATASETS_PATH", folder)
        action_space = spaces.Box(-1, 1, (actions,), np.float32)
        assert Path(folder) in write("my/any-v0", episodes, space, action_space).parents
        found = load_dataset("my/any-v0")
        expected = list(minari.load_dataset("my/any-v0").iterate_episodes())
    data = found.transitions
    assert data.episode.tolist() == np.repeat(range(len(lengths)), lengths).tolist()
    for name, true in {
        "action": [e.actions for e in expected],
        "reward": [np.reshape(e.rewards, -1) for e in expected],
        "terminated": [e.terminations for e in expected],
        "truncated": [e.truncations for e in expected],
    }.items():
        values = getattr(data, name).numpy()
        np.testing.assert_array_equal(values, np.concatenate(true).astype(values.dtype))
    columns: dict[str, Any] = {}
    for e in expected:
        for path, values in leaves(e.observations):
            for i in range(values.shape[1]):
                columns.setdefault(f"{path}[{i}]", []).append(values[:, i].astype(np.float32))
    names = found.observation_names or tuple(columns)
    assert sorted(names) == sorted(columns)
    assert (found.observation_names is not None) == isinstance(space, spaces.Dict)
    order = [path for path, _ in leaves(expected[0].observations)]
    if isinstance(space, spaces.Dict):
        flat = spaces.flatten(space, space.sample())
        assert len(flat) == len(names) == data.observation.shape[1]
        assert list(dict.fromkeys(n.rpartition("[")[0] for n in names)) == order
    for d, name in enumerate(names):
        before, after = ([c[s] for c in columns[name]] for s in (slice(-1), slice(1, None)))
        np.testing.assert_array_equal(data.observation[:, d].numpy(), np.concatenate(before))
        np.testing.assert_array_equal(data.next_observation[:, d].numpy(), np.concatenate(after))
