"""metadata.json: what is taken from it, and what is refused in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.errors import InputError
from tests.data.minari_files import ACTIONS, BOX, edit_metadata, episode, require_refused, write


def in_dictionaries(depth: int, name: str = "d") -> str:
    start = f'{{"type": "Dict", "subspaces": {{"{name}": '
    box = '{"type": "Box", "dtype": "float64", "shape": [3], "low": [0, 0, 0], "high": [1, 1, 1]}'
    return start * depth + box + "}}" * depth


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no metadata": (
        lambda folder: (folder / "metadata.json").unlink(),
        r"cannot read .*metadata\.json",
    ),
    "metadata is no JSON": (
        lambda folder: (folder / "metadata.json").write_text("{"),
        r"cannot read .*metadata\.json",
    ),
    "no spaces": (edit_metadata(observation_space=None), "has no observation_space"),
    "damaged space": (edit_metadata(action_space='{"type": "Box"}'), "damaged space"),
    "space is no JSON": (edit_metadata(action_space="{"), "damaged action_space"),
    "unknown space": (edit_metadata(action_space='{"type": "Ball"}'), "damaged space"),
    "no count": (edit_metadata(total_steps=None), "total_steps = None"),
    "counts of text": (edit_metadata(total_episodes="many"), "total_episodes = 'many'"),
    "other format": (edit_metadata(data_format="arrow"), "'arrow'; only hdf5 is supported"),
    "metadata nested too deep": (
        lambda folder: (folder / "metadata.json").write_text("[" * 10**6),
        "nested too deep",
    ),
    "space nested too deep": (edit_metadata(observation_space="[" * 10**6), "nested too deep"),
    "dictionaries in dictionaries": (
        edit_metadata(observation_space=in_dictionaries(400)),
        "damaged part of 'observations/d/d",
    ),
    "a name for a formula": (
        edit_metadata(observation_space=in_dictionaries(1, "$x$")),
        "damaged part of 'observations'",
    ),
    "endless metadata": (
        lambda folder: (folder / "metadata.json").write_text(" " * 2**25),
        "larger than",
    ),
}


@pytest.mark.situation("refused")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_metadata_is_refused_in_one_sentence(
    sound: Path, tmp_path: Path, damage: tuple[Callable[[Path], object], str]
) -> None:
    break_it, message = damage
    require_refused(sound, tmp_path, break_it, message)


IMAGE = spaces.Box(0, 255, (32, 32, 3), np.uint8)


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (IMAGE, ACTIONS, r"image observations of shape \[32, 32, 3\]"),
        (spaces.Dict({"eye": IMAGE, "p": BOX}), ACTIONS, r"image observations/eye of shape"),
        (spaces.Discrete(4), ACTIONS, "Discrete observations"),
        (spaces.Tuple((BOX, BOX)), ACTIONS, "Tuple observations"),
        (spaces.Text(5), ACTIONS, "Text observations"),
        (spaces.Box(0, 1, (2, 2)), ACTIONS, r"Box observations of shape \[2, 2\]"),
        (BOX, spaces.Discrete(4), "Discrete actions"),
        (BOX, spaces.MultiDiscrete([2, 3]), "MultiDiscrete actions"),
    ],
)
def test_other_spaces_are_named_and_refused(
    root: Path,
    rng: np.random.Generator,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    message: str,
) -> None:
    data = episode(3, rng, observation_space, action_space)
    write("my/a-v0", [data], observation_space, action_space)
    with pytest.raises(InputError, match=f"'my/a-v0' has {message}"):
        load_dataset("my/a-v0")


def test_names_out_of_metadata_that_could_do_harm_are_not_taken(
    root: Path, rng: np.random.Generator
) -> None:
    folder = write("my/a-v0", [episode(3, rng)], env="Hopper-v5")
    spec = json.dumps({"id": "Hopper-v5\x1b[2J"})
    edit_metadata(dataset_id="../../\x1b[2J-v0", env_spec=spec)(folder)
    dataset = load_dataset("my/a-v0")
    assert dataset.id == "my/a-v0"
    assert dataset.env_id is None


def test_metadata_names_no_environment(root: Path, rng: np.random.Generator) -> None:
    write("my/a-v0", [episode(3, rng)])
    dataset = load_dataset("my/a-v0")
    assert dataset.env_id is None


def test_gymnasium_is_what_the_spec_names(root: Path, rng: np.random.Generator) -> None:
    """The identifier comes from the metadata alone: no entry point is ever imported."""
    folder = write("my/a-v0", [episode(3, rng)], env="Hopper-v5")
    spec = json.loads(gymnasium.spec("Hopper-v5").to_json())
    spec["entry_point"] = "os:abort"
    edit_metadata(env_spec=json.dumps(spec))(folder)
    assert load_dataset("my/a-v0").env_id == "Hopper-v5"


def test_the_whole_env_spec_is_kept(root: Path, rng: np.random.Generator) -> None:
    folder = write("my/a-v0", [episode(3, rng)], env="Hopper-v5")
    env = gymnasium.make("Hopper-v5", healthy_z_range=(0.5, float("inf")), max_episode_steps=50)
    assert env.spec is not None
    edit_metadata(env_spec=env.spec.to_json())(folder)
    spec = EnvSpec("Hopper-v5", {"healthy_z_range": (0.5, float("inf"))}, (), 50)
    assert load_dataset("my/a-v0").env_spec == spec


@pytest.mark.situation("refused")
def test_arguments_that_cannot_be_read_are_not_passed_over(
    root: Path, rng: np.random.Generator
) -> None:
    folder = write("my/a-v0", [episode(3, rng)])
    edit_metadata(env_spec=json.dumps({"id": "Hopper-v5", "kwargs": {"a": "\x1b[2J"}}))(folder)
    with pytest.raises(InputError, match=r"damaged env_spec .the argument a is"):
        load_dataset("my/a-v0")
