"""Copies of a data set have one fingerprint; whatever is learned from it changes it, by name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import minari
import numpy as np
import pytest

from mbrl_bilevel.data.dataset_folder import lasting_name
from mbrl_bilevel.data.fingerprint import changes, fingerprint, first_episodes, is_fingerprint
from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.errors import InputError
from tests.data.minari_files import episode, write


@pytest.fixture
def folder(root: Path, rng: np.random.Generator) -> Path:
    return write("my/a-v0", [episode(n, rng) for n in (4, 7, 5)], env="Hopper-v5")


def in_file(name: str, value: float) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        with h5py.File(folder / "main_data.hdf5", "a") as file:
            file[f"episode_1/{name}"][2] = value

    return edit


def in_metadata(**values: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        metadata = json.loads((folder / "metadata.json").read_text())
        (folder / "metadata.json").write_text(json.dumps(metadata | values))

    return edit


def test_a_copy_has_the_same_fingerprint(folder: Path, tmp_path: Path) -> None:
    before = fingerprint(load_dataset(folder))
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    for file in copy.iterdir():
        os.utime(file, (1, 1))
    in_metadata(author="somebody else", dataset_id="my/other-v0")(copy)
    assert changes(before, fingerprint(load_dataset(copy))) == []
    assert is_fingerprint(json.loads(json.dumps(before)))


EDITS = {
    "other observations": in_file("observations", 0.5),
    "other actions": in_file("actions", 0.5),
    "other rewards": in_file("rewards", 0.5),
    "other ends": in_file("terminations", True),
    "other environment": in_metadata(env_spec=json.dumps({"id": "Walker2d-v5"})),
}


@pytest.mark.parametrize("what", EDITS)
def test_what_was_edited_is_named(folder: Path, what: str) -> None:
    before = fingerprint(load_dataset(folder))
    EDITS[what](folder)
    assert changes(before, fingerprint(load_dataset(folder))) == [what]


def test_episodes_of_other_lengths_are_other_data(root: Path, rng: np.random.Generator) -> None:
    """The same rows, of which one belongs to the next episode in the second data set."""
    write("my/a-v0", [episode(4, rng), episode(7, rng)])
    whole, other = load_dataset("my/a-v0"), load_dataset("my/a-v0")
    other.transitions.episode[3] = 1
    assert changes(fingerprint(whole), fingerprint(other)) == ["other lengths"]


def test_added_episodes_are_counted_and_the_first_ones_stay(
    folder: Path, rng: np.random.Generator
) -> None:
    before = fingerprint(load_dataset(folder))
    minari.load_dataset("my/a-v0").update_dataset_from_buffer([episode(6, rng)])
    now = load_dataset(folder)
    assert changes(before, fingerprint(now)) == [
        "4 episodes instead of 3",
        "22 steps instead of 16",
    ]
    assert changes(before, fingerprint(first_episodes(now, 3))) == []


def test_a_folder_is_found_from_any_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder.parent, tmp_path / "f-v0")
    monkeypatch.chdir(tmp_path)
    for name in ("f-v0", "./f-v0", "x/../f-v0", str(tmp_path / "f-v0")):
        if name.startswith("x"):
            (tmp_path / "x").mkdir()
        assert lasting_name(name) == str(tmp_path / "f-v0")
    assert lasting_name("my/a-v0") == "my/a-v0"
    with pytest.raises(InputError, match="neither"):
        lasting_name("./nothing")


@pytest.mark.situation("right")
@pytest.mark.filterwarnings("ignore:.*float32 rounds")
def test_changes_that_are_kept_as_recorded_count(folder: Path) -> None:
    """Observations that are the same in float32, whose changes are not, teach something else."""
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        for e in range(3):
            file[f"episode_{e}/observations"][...] += 2.0**20
        row = np.float64(np.float32(file["episode_1/observations"][2]))
        file["episode_1/observations"][2] = row
    before = load_dataset(folder)
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        file["episode_1/observations"][2] = row + 0.01  # less than float32 can tell
    after = load_dataset(folder)
    assert after.transitions.observation.equal(before.transitions.observation)
    assert changes(fingerprint(before), fingerprint(after)) == ["other observations"]
