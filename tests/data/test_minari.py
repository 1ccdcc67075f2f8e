"""What is loaded is what Minari's own iterator gives, and bad data is refused in one sentence."""

import json
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import gymnasium
import h5py
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.errors import InputError
from tests.data.minari_files import ACTIONS, BOX, episode, write


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


def test_a_folder_is_as_good_as_an_id(root: Path, rng: np.random.Generator) -> None:
    folder = write("my/a-v0", [episode(4, rng)])
    for given in (folder, folder.parent, str(folder), str(folder.parent)):
        assert torch.equal(
            load_dataset(given).transitions.observation,
            load_dataset("my/a-v0").transitions.observation,
        )


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


def edit_file(edit: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with h5py.File(folder / "main_data.hdf5", "a") as file:
            edit(file)

    return damage


def edit_metadata(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        metadata = json.loads((folder / "metadata.json").read_text())
        metadata.update(changes)
        kept = {key: value for key, value in metadata.items() if value is not None}
        (folder / "metadata.json").write_text(json.dumps(kept))

    return damage


def replace(name: str, shape: tuple[int, ...], dtype: str = "f8") -> Callable[[Path], None]:
    def edit(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=np.zeros(shape, dtype))

    return edit_file(edit)


def cut(size: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "main_data.hdf5"
        path.write_bytes(path.read_bytes()[:size])

    return damage


def scramble(folder: Path) -> None:
    path = folder / "main_data.hdf5"
    content = bytearray(path.read_bytes())
    content[2_000:-2_000] = bytes(len(content) - 4_000)
    path.write_bytes(content)


def link(name: str, to: h5py.ExternalLink | h5py.SoftLink) -> Callable[[Path], None]:
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = to

    def damage(folder: Path) -> None:
        shutil.copy(folder / "main_data.hdf5", folder / "other.hdf5")
        edit_file(edit)(folder)

    return damage


@edit_file
def mapped_onto_another_file(file: h5py.File) -> None:
    del file["episode_3/rewards"]
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("other.hdf5", "rewards", (4,))
    file.create_virtual_dataset("episode_3/rewards", layout)


@edit_file
def numbers_in_another_file(file: h5py.File) -> None:
    del file["episode_3/rewards"]
    file.create_dataset("episode_3/rewards", (4,), "f8", external=[("/etc/hostname", 0, 32)])


@edit_file
def chunk_to_unpack(file: h5py.File) -> None:
    del file["episode_3/rewards"]
    file.create_dataset(
        "episode_3/rewards", (4,), "f4", chunks=(10**9,), maxshape=(None,), compression="gzip"
    )


def flags(name: str, values: list[float]) -> Callable[[Path], object]:
    @edit_file
    def edit(file: h5py.File) -> None:
        del file[f"episode_3/{name}"]
        file[f"episode_3/{name}"] = values

    return edit


def in_dictionaries(depth: int, name: str = "d") -> str:
    start = f'{{"type": "Dict", "subspaces": {{"{name}": '
    box = '{"type": "Box", "dtype": "float64", "shape": [3], "low": [0, 0, 0], "high": [1, 1, 1]}'
    return start * depth + box + "}}" * depth


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty file": (cut(0), r"main_data\.hdf5 is 0 bytes long"),
    "half a file": (cut(20_000), r"cannot read .*main_data\.hdf5"),
    "zeros in the middle": (scramble, r"cannot read .*main_data\.hdf5"),
    "no text of HDF5": (
        lambda folder: (folder / "main_data.hdf5").write_text("hello " * 999),
        r"cannot read .*main_data\.hdf5",
    ),
    "no file": (
        lambda folder: (folder / "main_data.hdf5").unlink(),
        r"cannot read .*main_data\.hdf5",
    ),
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
    "absurd count": (edit_metadata(total_steps=10**15), "promises 26,000,000,000,000,144 bytes"),
    "other format": (edit_metadata(data_format="arrow"), "'arrow'; only hdf5 is supported"),
    "fewer steps than promised": (edit_metadata(total_steps=49), "holds only 48 steps"),
    "more steps than promised": (edit_metadata(total_steps=47), "holds more steps"),
    "fewer episodes": (edit_metadata(total_episodes=13), "holds 12 episodes"),
    "no steps": (edit_metadata(total_steps=0), "too few"),
    "one step": (edit_metadata(total_steps=1), "too few"),
    "episode missing": (
        edit_file(lambda file: file.move("episode_3", "episode_x")),
        "cannot read",
    ),
    "array missing": (edit_file(lambda file: file["episode_3"].pop("rewards")), "cannot read"),
    "actions as long as observations": (
        replace("episode_3/actions", (5, 2)),
        r"episode 3 .*actions of shape \[5, 2\] where \[4, 2\] is expected",
    ),
    "observations too short": (
        replace("episode_3/observations", (4, 3)),
        r"episode 3 .*actions of shape \[4, 2\] where \[3, 2\]",
    ),
    "no observation": (replace("episode_3/observations", (0, 3)), "episode 3 .*observations"),
    "other width": (replace("episode_3/observations", (5, 4)), r"observations of shape \[5, 4\]"),
    "scalar": (replace("episode_3/rewards", ()), r"rewards of shape \[\]"),
    "a flag of 2": (
        flags("terminations", [0, 0, 2, 1]),
        "episode 3 of .* has terminations of 2 at step 2, where True or False is needed",
    ),
    "a flag of a half": (
        flags("truncations", [0, 0.5, 0, 0]),
        "episode 3 of .* has truncations of 0.5 at step 1",
    ),
    "a flag that is no number": (
        flags("terminations", [0, 0, 0, np.nan]),
        "episode 3 of .* has terminations of nan at step 3",
    ),
    "text for numbers": (replace("episode_3/rewards", (4,), "S3"), r"rewards of type \|S3"),
    "link to another file": (
        link("episode_3/rewards", h5py.ExternalLink("other.hdf5", "/rewards")),
        "has a link at 'rewards'",
    ),
    "episode in another file": (
        link("episode_3", h5py.ExternalLink("other.hdf5", "/episode_3")),
        "has a link at 'episode_3'",
    ),
    "link within": (
        link("episode_3/rewards", h5py.SoftLink("/episode_2/rewards")),
        "has a link at 'rewards'",
    ),
    "array mapped onto another file": (mapped_onto_another_file, "numbers lie in another file"),
    "numbers kept in another file": (numbers_in_another_file, "numbers lie in another file"),
    "chunk to unpack": (chunk_to_unpack, "which are too many"),
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


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound data set of 12 episodes of 4 steps, to be copied and damaged."""
    root = tmp_path_factory.mktemp("sound")
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        return write("my/a-v0", [episode(4, rng) for _ in range(12)])


@pytest.mark.situation("refused")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_data_is_refused_in_one_sentence(
    sound: Path, tmp_path: Path, damage: tuple[Callable[[Path], object], str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(sound, folder)
    load_dataset(folder)
    break_it, message = damage
    break_it(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my/unknown-v0", "no data set 'my/unknown-v0' in .*--download"),
        ("my/unknown", "neither the folder of a Minari data set nor a data set id"),
        ("../x", "neither the folder"),
        ("../../etc/x-v0", "neither the folder"),
        ("/etc/passwd", "neither the folder"),
        ("/etc", "neither the folder"),
        ("", "neither the folder"),
        ("a" * 5000 + "-v0", "no data set"),
        ("x\0y-v0", "neither the folder"),
    ],
)
def test_unknown_and_malformed_names_are_refused(root: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(name)


@pytest.mark.parametrize("offline", [True, False])
def test_no_network_is_said_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1" if offline else "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.delenv("MINARI_REMOTE", raising=False)
    with pytest.raises(
        InputError, match=r"cannot download 'mujoco/hopper/medium-v0': no connection"
    ):
        load_dataset("mujoco/hopper/medium-v0", download=True)


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


def test_peak_memory_is_under_three_times_the_tensors(root: Path, rng: np.random.Generator) -> None:
    space = spaces.Box(-np.inf, np.inf, (30,), np.float64)
    write("my/a-v0", [episode(1000, rng, space) for _ in range(100)], observation_space=space)
    tracemalloc.start()
    dataset = load_dataset("my/a-v0")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    columns = (getattr(dataset.transitions, f.name) for f in fields(dataset.transitions))
    size = sum(column.nbytes for column in columns if column is not None)
    assert size < peak < 3 * size


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
