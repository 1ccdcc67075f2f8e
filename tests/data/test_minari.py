"""What is loaded is what Minari's own iterator gives."""

from pathlib import Path

import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.errors import InputError
from tests.data.minari_files import edit_metadata, episode, require_refused, write


def test_same_numbers_as_minari_in_numeric_order(root: Path, rng: np.random.Generator) -> None:
    lengths = [5, 1, 7, 3, 2, 600, 4, 6, 8, 2, 3, 9, 5]  # 13: as text, episode 10 precedes 2
    write("my/a-v0", [episode(n, rng, terminated=n % 2 == 0) for n in lengths], env="Hopper-v5")
    dataset = load_dataset("my/a-v0")
    expected = list(minari.load_dataset("my/a-v0").iterate_episodes())
    got = dataset.transitions
    for name, reference in {
        "observation": [e.observations[:-1] for e in expected],
        "next_observation": [e.observations[1:] for e in expected],
        "action": [e.actions for e in expected],
        "reward": [e.rewards for e in expected],
        "terminated": [e.terminations for e in expected],
        "truncated": [e.truncations for e in expected],
        "episode": [np.full(len(e.rewards), i) for i, e in enumerate(expected)],
    }.items():
        values = np.concatenate(reference)
        values = values.astype(np.float32) if values.dtype == np.float64 else values
        np.testing.assert_array_equal(getattr(got, name).numpy(), values, err_msg=name)
    assert torch.bincount(got.episode).tolist() == lengths
    assert dataset.id == "my/a-v0"
    assert dataset.env_id == "Hopper-v5"
    assert dataset.observation_names is None
    assert dataset.action_high.tolist() == [1, 1]


def test_dict_observations_flatten_as_gymnasium_does(root: Path, rng: np.random.Generator) -> None:
    def box(n: int, dtype: type = np.float64) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, (n,), dtype)

    space = spaces.Dict(
        [
            ("velocity", box(2)),
            ("arm", spaces.Dict([("z", box(1)), ("a", box(2, np.float32))])),
            ("goal", box(1)),
        ]
    )
    data = episode(6, rng, observation_space=space)
    write("my/dict-v0", [data], observation_space=space)
    dataset = load_dataset("my/dict-v0")

    def row(part: dict, i: int) -> dict:
        return {k: row(v, i) if isinstance(v, dict) else v[i] for k, v in part.items()}

    assert isinstance(data.observations, dict)
    rows = [np.asarray(spaces.flatten(space, row(data.observations, i))) for i in range(7)]
    flat = np.stack(rows)
    np.testing.assert_array_equal(dataset.transitions.observation, flat[:-1].astype(np.float32))
    np.testing.assert_array_equal(dataset.transitions.next_observation, flat[1:].astype(np.float32))
    assert dataset.observation_names is not None
    assert len(dataset.observation_names) == 6
    column = dataset.observation_names.index("arm/z[0]")
    arm = data.observations["arm"]["z"][:-1, 0].astype(np.float32)
    np.testing.assert_array_equal(dataset.transitions.observation[:, column], arm)


def test_actions_outside_their_box_are_kept_with_a_warning(
    root: Path, rng: np.random.Generator
) -> None:
    data = episode(50, rng)
    assert isinstance(data.actions, np.ndarray)
    data.actions[3] = [1.5, 0]
    data.actions[7] = [0, -3]
    write("my/a-v0", [data])
    with pytest.warns(UserWarning, match=r"2 of 50 actions outside their box, by at most 2;"):
        dataset = load_dataset("my/a-v0")
    assert dataset.transitions.action[7, 1] == -3


@pytest.mark.situation("refused")
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])  # the last one is beyond float32
@pytest.mark.parametrize("field", ["observations", "actions", "rewards"])
def test_values_that_are_not_finite_are_found(
    root: Path, rng: np.random.Generator, field: str, value: float
) -> None:
    data = [episode(4, rng) for _ in range(12)]
    with np.errstate(over="ignore"):
        getattr(data[10], field)[2] = value
    write("my/a-v0", data)
    with pytest.raises(InputError, match=rf"{field} = (nan|inf) at episode 10, step 2;"):
        load_dataset("my/a-v0")


@pytest.mark.situation("warned")
@pytest.mark.parametrize("kind", ["terminations", "truncations"])
def test_ends_before_the_last_step_of_an_episode(
    root: Path, rng: np.random.Generator, kind: str
) -> None:
    """Episodes that are stored as one: the reset in between is taken for a step."""
    episodes = [episode(n, rng) for n in (4, 7, 5)]
    getattr(episodes[1], kind)[[2, 4]] = True
    write("my/a-v0", episodes)
    with pytest.warns(UserWarning, match=r"2 ends \(terminated or .*at episode 1, step 2:"):
        data = load_dataset("my/a-v0").transitions
    found = data.terminated if kind == "terminations" else data.truncated
    assert found[4:11].tolist() == [False, False, True, False, True, False, kind == "truncations"]


@pytest.mark.situation("refused")
@pytest.mark.parametrize("steps", [0, 1])
def test_fewer_than_two_transitions_are_refused(sound: Path, tmp_path: Path, steps: int) -> None:
    require_refused(sound, tmp_path, edit_metadata(total_steps=steps), "too few")
