"""Damaged HDF5 files, and those that lead elsewhere, are refused in one sentence."""

import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from mbrl_bilevel.data.minari import load_dataset
from tests.data.minari_files import edit_metadata, episode, require_refused, write


def edit_file(edit: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with h5py.File(folder / "main_data.hdf5", "a") as file:
            edit(file)

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
    "absurd count": (edit_metadata(total_steps=10**15), "promises 26,000,000,000,000,144 bytes"),
    "fewer steps than promised": (edit_metadata(total_steps=49), "holds only 48 steps"),
    "more steps than promised": (edit_metadata(total_steps=47), "holds more steps"),
    "fewer episodes": (edit_metadata(total_episodes=13), "holds 12 episodes"),
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
}


@pytest.mark.situation("refused")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_hdf5_file_is_refused_in_one_sentence(
    sound: Path, tmp_path: Path, damage: tuple[Callable[[Path], object], str]
) -> None:
    break_it, message = damage
    require_refused(sound, tmp_path, break_it, message)


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
