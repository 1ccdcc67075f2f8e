"""Offsets that float32 cannot hold are refused or warned of; scales and dtypes are no matter."""

import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from mbrl_bilevel.data import rounding
from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.data.rounding import to_float32
from mbrl_bilevel.errors import InputError
from tests.data.minari_files import episode, write

SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float64)


def moving(
    rng: np.random.Generator, offset: float = 0.0, scale: float = 1.0, episodes: int = 5
) -> list[EpisodeBuffer]:
    """x' = 0.95 x + 0.3 u + noise in three dimensions, of which the second has the offset."""
    made = [episode(60, rng, SPACE) for _ in range(episodes)]
    for one in made:
        x = rng.standard_normal(3)
        for t in range(61):
            one.observations[t] = scale * x + [0.0, offset, 0.0]
            x = 0.95 * x + 0.3 * rng.uniform(-1, 1, 3)
    return made


def load(episodes: list[EpisodeBuffer]) -> np.ndarray:
    folder = write("my/a-v0", episodes, SPACE)
    return load_dataset(folder).transitions.observation.numpy()


@pytest.mark.situation("refused")
@pytest.mark.parametrize("offset", [1e7, -1e8, 1e9, 1e12])
def test_an_offset_that_leaves_nothing_is_refused(
    root: Path, rng: np.random.Generator, offset: float
) -> None:
    with pytest.raises(InputError, match=r"observations\[1\] of values of about .*its offset"):
        load(moving(rng, offset))


@pytest.mark.situation("warned")
@pytest.mark.parametrize("offset", [3e5, 1e6, -1e6])
def test_an_offset_that_costs_precision_is_warned_of(
    root: Path, rng: np.random.Generator, offset: float
) -> None:
    with pytest.warns(UserWarning, match=r"float32 rounds changes of observations\[1\] of about"):
        load(moving(rng, offset))


def test_the_warning_says_what_is_kept_and_what_is_lost(
    root: Path, rng: np.random.Generator
) -> None:
    data = moving(rng, 1e6)
    with pytest.warns(UserWarning, match=r"learned .* as recorded, but the observations") as found:
        load_dataset(write("my/a-v0", data, SPACE))
    assert "as is the rest" not in str(found[0].message)
    for one in data:
        one.rewards[...] += 1e7
    with pytest.warns(UserWarning, match=r"are rounded, as is the rest; subtract"):
        load_dataset(write("my/b-v0", data, SPACE))


@pytest.mark.situation("right")
@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (1e4, 1), (0, 1e-30), (0, 1e37), (1e40, 0)])
def test_scales_and_small_offsets_are_no_matter(
    root: Path, rng: np.random.Generator, offset: float, scale: float
) -> None:
    if scale == 0:  # a constant, within float32's range
        offset = 1e30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load(moving(rng, offset, scale))
    assert np.isfinite(found).all()


def test_a_clock_far_from_zero_is_refused(root: Path, rng: np.random.Generator) -> None:
    data = moving(rng)
    for number, one in enumerate(data):
        one.observations[:, 2] = 1.7e9 + 100 * number + 0.01 * np.arange(61)
    with pytest.raises(InputError, match=r"observations\[2\] of values of about 1.7e\+09"):
        load(data)


def test_constants_up_to_rounding_are_constants(root: Path, rng: np.random.Generator) -> None:
    """Noise in the last bit of float64, or of float32 where numbers were recorded so."""
    data = moving(rng)
    for one in data:
        one.observations[:, 1] = 8.9 + 1e-15 * rng.standard_normal(61)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(data)
    for one in data:
        one.observations[:, 1] = np.float32(8.9) + np.spacing(np.float32(8.9)) * rng.integers(
            0, 2, 61
        )
    with pytest.warns(UserWarning, match=r"observations\[1\]"):
        load_dataset(write("my/b-v0", data, SPACE))


@pytest.mark.parametrize("field", ["rewards", "actions"])
def test_offsets_of_rewards_and_actions_are_warned_of(
    root: Path, rng: np.random.Generator, field: str
) -> None:
    data = moving(rng)
    for one in data:
        getattr(one, field)[...] += 1e7
    action_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    with pytest.warns(UserWarning, match=rf"deviations of {field}\[0\] of about"):
        load_dataset(write("my/a-v0", data, SPACE, action_space))


@pytest.mark.situation("right")
@pytest.mark.parametrize("offset", [3e5, -1e6, 2e6])
@pytest.mark.filterwarnings("ignore:.*float32 rounds")
def test_changes_are_those_that_were_recorded(
    root: Path, rng: np.random.Generator, offset: float
) -> None:
    """Of each row, in whatever order, and those of the other part of a Dict too."""
    plain = moving(rng, episodes=4)
    changes = np.concatenate([np.diff(one.observations, axis=0) for one in plain])
    space = spaces.Dict(
        far=spaces.Box(-np.inf, np.inf, (1,), np.float64),
        near=spaces.Box(-np.inf, np.inf, (2,), np.float64),
    )
    data = [
        replace(one, observations={"near": x[:, ::2], "far": x[:, 1:2] + offset})
        for one in plain
        for x in [one.observations]
    ]
    rows = load_dataset(write("my/a-v0", data, space)).transitions
    assert rows.recorded_change is not None
    np.testing.assert_allclose(rows.change[:, 0], changes[:, 1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(rows.change[:, 1:], changes[:, ::2], rtol=0, atol=1e-6)
    some = torch.tensor([100, 7, 59])
    np.testing.assert_array_equal(rows[some].change, rows.change[some])
    one = rows[rows.episode == 2].to("cpu")
    np.testing.assert_array_equal(one.change, rows.change[120:180])


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_where_nothing_is_lost_no_changes_are_kept(
    root: Path, rng: np.random.Generator, offset: float
) -> None:
    rows = load_dataset(write("my/a-v0", moving(rng, offset), SPACE)).transitions
    assert rows.recorded_change is None
    assert rows.change.equal(rows.next_observation - rows.observation)


@pytest.mark.parametrize("chunk", [1, 3, 5, 15, 1000])
def test_measures_are_those_of_a_slow_loop(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(rounding, "CHUNK", chunk)
    lengths = [4, 1, 7]
    values = 5 + rng.standard_normal((sum(lengths) + 3, 2))
    starts = np.array([0, 5, 7])
    narrow, found = to_float32(values, starts, 2.0**-23)
    changes = [
        values[i + 1] - values[i] for i in range(len(values) - 1) if i + 1 not in starts.tolist()
    ]
    np.testing.assert_allclose(found.change, np.sqrt(np.square(changes).mean(0)))
    np.testing.assert_allclose(found.deviation, values.std(0))
    size = np.sqrt(np.square(values).mean(0))
    np.testing.assert_allclose(found.size, size)
    np.testing.assert_allclose(found.resolution, np.spacing(size.astype(np.float32)))
    np.testing.assert_array_equal(narrow, values.astype(np.float32))
    assert found.exact.tolist() == [False, False]


REAL = ["float16", "float32", "float64", "longdouble", "int8", "uint8", "int32", "int64", "bool"]


@pytest.mark.situation("right")
@pytest.mark.parametrize("dtype", [*REAL, ">f8", ">i4"])
@pytest.mark.parametrize("field", ["observations", "actions", "rewards"])
@pytest.mark.filterwarnings("ignore:.*actions outside their box")
def test_every_real_dtype_is_read_right(
    root: Path, rng: np.random.Generator, field: str, dtype: str
) -> None:
    folder = write("my/a-v0", [episode(4, rng) for _ in range(3)])
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        for e in range(3):
            name = f"episode_{e}/{field}"
            values = (3 * np.abs(file[name][:])).astype(dtype)
            del file[name]
            file.create_dataset(name, data=values)
    rows = load_dataset(folder).transitions[slice(8, 12)]
    found = {"observations": rows.observation, "actions": rows.action, "rewards": rows.reward}
    np.testing.assert_array_equal(found[field], values[:4].astype(np.float32))


def test_float16_is_as_coarse_as_it_is(root: Path, rng: np.random.Generator) -> None:
    data = moving(rng, 1000.0)
    folder = write("my/a-v0", data, SPACE)
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        for e in range(len(data)):
            values = file[f"episode_{e}/observations"][:].astype(np.float16)
            del file[f"episode_{e}/observations"]
            file[f"episode_{e}/observations"] = values
    with pytest.warns(
        UserWarning, match=r"to steps of 0\.5 .* are trained and evaluated on what is left"
    ):
        assert load_dataset(folder).transitions.recorded_change is None


@pytest.mark.situation("right")
@pytest.mark.parametrize("field", ["rewards", "terminations", "truncations"])
def test_columns_of_one_number_are_taken(root: Path, rng: np.random.Generator, field: str) -> None:
    folder = write("my/a-v0", [episode(4, rng) for _ in range(3)])
    before = load_dataset(folder).transitions
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        values = file[f"episode_1/{field}"][:]
        del file[f"episode_1/{field}"]
        file[f"episode_1/{field}"] = values[:, None]
    after = load_dataset(folder).transitions
    assert before.recorded_change is after.recorded_change is None
    for name, column in vars(before).items():
        assert column is None or column.equal(getattr(after, name))


@pytest.mark.parametrize("values", [np.zeros(4, complex), np.full(4, b"abc")])
def test_what_is_no_real_number_is_refused_by_its_type(
    root: Path, rng: np.random.Generator, values: np.ndarray
) -> None:
    folder = write("my/a-v0", [episode(4, rng) for _ in range(3)])
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        del file["episode_1/rewards"]
        file["episode_1/rewards"] = values
    with pytest.raises(InputError, match=r"episode 1 .*rewards of type (complex128|\|S3)"):
        load_dataset(folder)
