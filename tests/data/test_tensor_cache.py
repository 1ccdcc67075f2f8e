"""A cached load equals an uncached one to the bit; what is stale or damaged is read anew."""

import os
import shutil
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mbrl_bilevel.data import minari, tensor_cache
from mbrl_bilevel.data.minari import load_dataset
from tests.data.minari_files import edit_metadata, episode, write

ID = "my/a-v0"
DICT = spaces.Dict({"x": spaces.Box(-9, 9, (2,)), "v": spaces.Box(-9, 9, (1,))})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, root):
    """A cache folder of one's own, for data sets however small; the number of reads of files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tensor_cache, "LEAST_BYTES", 0)
    return tmp_path / "cache/mbrl-bilevel/datasets"


@pytest.fixture
def reads(monkeypatch):
    found, read = [], minari.read_episodes

    def spy(path, **how):
        found.append(path)
        return read(path, **how)

    monkeypatch.setattr(minari, "read_episodes", spy)
    return found


def load(**how):
    """A data set's columns and the warnings of loading it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = load_dataset(ID, **how).transitions
    columns = {f.name: getattr(data, f.name) for f in fields(data)}
    return columns, [str(one.message) for one in said]


def assert_same(first, second):
    for name, column in first[0].items():
        other = second[0][name]
        if column is None:
            assert other is None
        else:
            assert column.dtype == other.dtype
            assert torch.equal(column, other), name
    assert first[1] == second[1]


def offset(one, by):
    return replace(one, observations=one.observations + by)


@pytest.mark.parametrize("kind", ["box", "dict", "doubtful"])
def test_a_cached_load_equals_an_uncached_one(rng, reads, kind):
    """Doubtful: actions outside their box, and an offset that float32 rounds."""
    if kind == "dict":
        write(ID, [episode(n, rng, DICT) for n in (3, 5, 1)], DICT)
    else:
        episodes = [episode(n, rng) for n in (3, 5, 1)]
        if kind == "doubtful":
            episodes = [offset(one, 3e6) for one in episodes]
            episodes[1].actions[2] = 7.0
        write(ID, episodes)
    plain = load(cache=False)
    first, second = load(), load()
    assert len(reads) == 2
    assert_same(plain, first)
    assert_same(plain, second)
    assert len(plain[1]) == (2 if kind == "doubtful" else 0)
    assert (plain[0]["recorded_change"] is None) == (kind != "doubtful")


def test_without_the_cache_nothing_is_kept_and_nothing_kept_is_used(rng, reads, cache):
    write(ID, [episode(4, rng)])
    load(cache=False)
    assert not cache.exists()
    load()
    load(cache=False)
    assert len(reads) == 3


def test_small_files_are_not_kept(rng, cache, monkeypatch):
    folder = write(ID, [episode(4, rng)])
    size = (folder / "main_data.hdf5").stat().st_size
    monkeypatch.setattr(tensor_cache, "LEAST_BYTES", size + 1)
    load()
    assert not cache.exists()
    monkeypatch.setattr(tensor_cache, "LEAST_BYTES", size)
    load()
    assert len(list(cache.iterdir())) == 1


def test_data_that_were_written_anew_are_read_anew(rng, reads, cache):
    folder = write(ID, [episode(4, rng)])
    before = load()
    shutil.rmtree(folder.parent)
    write(ID, [episode(4, rng)])
    after = load()
    assert not torch.equal(before[0]["observation"], after[0]["observation"])
    assert_same(after, load(cache=False))
    assert len(list(cache.iterdir())) == 1  # in place of the stale one


@pytest.mark.parametrize("change", ["time", "metadata"])
def test_files_that_were_touched_are_read_anew(rng, reads, change):
    folder = write(ID, [episode(4, rng)])
    load()
    if change == "time":
        os.utime(folder / "main_data.hdf5", ns=(1, 1))
    else:
        edit_metadata(author="another")(folder)
    load()
    assert len(reads) == 2
    load()
    assert len(reads) == 2


def test_other_data_of_the_same_size_and_modification_time_are_read(rng, cache):
    """As `cp -p`, `rsync -t` and archives leave them."""
    file = write(ID, [episode(4, rng)]) / "main_data.hdf5"
    load()
    before = file.stat()
    with h5py.File(file, "r+") as data:
        data["episode_0/rewards"][0] = 7.0
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert load()[0]["reward"][0] == 7.0


def test_loads_at_the_same_time_keep_the_tensors_once(rng, reads, cache, monkeypatch):
    write(ID, [episode(4, rng)])
    sound, both, plain_write = load(cache=False), threading.Barrier(2), tensor_cache.write_tensors

    def write_together(path, *contents):
        plain_write(path, *contents)
        both.wait(timeout=30)  # neither is renamed before both are written

    monkeypatch.setattr(tensor_cache, "write_tensors", write_together)
    with ThreadPoolExecutor(2) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(pool.map(lambda _: load_dataset(ID).transitions, range(2)))
    assert [len(list(cache.iterdir())), len(reads)] == [1, 3]
    for one in found:
        assert torch.equal(one.observation, sound[0]["observation"])


@pytest.mark.parametrize("chosen", [None, "", "relative"])
def test_without_a_home_nothing_is_kept(rng, tmp_path, monkeypatch, chosen):
    """A container's user may have none; a relative $XDG_CACHE_HOME says nothing."""
    write(ID, [episode(4, rng)])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("XDG_CACHE_HOME")
    if chosen is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", chosen)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    plain, first = load(cache=False), load()
    assert_same(plain, first)
    assert list((tmp_path / "here").iterdir()) == []


def test_what_is_kept_is_the_owners_alone(rng, cache):
    write(ID, [episode(4, rng)])
    load()
    assert cache.stat().st_mode & 0o077 == 0


def flipped(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        lambda file: file.write_bytes(file.read_bytes()[:-8]),
        lambda file: file.write_bytes(b"nothing"),
        lambda file: file.write_bytes(b""),
    ],
)
def test_a_damaged_cache_is_made_again(rng, reads, cache, damage):
    write(ID, [episode(4, rng)])
    sound = load()
    (file,) = cache.iterdir()
    damage(file)
    assert_same(sound, load())
    assert len(reads) == 2
    assert_same(sound, load())
    assert len(reads) == 2


def test_tensors_of_another_format_are_not_taken(rng, reads, cache):
    write(ID, [episode(4, rng)])
    sound = load()
    (file,) = cache.iterdir()
    tensors, texts = tensor_cache.load_tensors(file)
    for wrong in ({**tensors, "more": torch.ones(4)}, {**tensors, "reward": torch.ones(3)}):
        tensor_cache.write_tensors(file, wrong, texts)
        assert_same(sound, load())
    assert len(reads) == 3


def test_a_cache_that_cannot_be_written_is_warned_of_and_done_without(rng, tmp_path, reads):
    write(ID, [episode(4, rng)])
    plain = load(cache=False)
    (tmp_path / "cache").write_text("a file where a folder should be")
    columns, said = load()
    assert len(said) == 1
    assert "cannot be kept in" in said[0]
    assert_same((plain[0], []), (columns, []))


def test_changes_in_memory_do_not_reach_the_cache(rng):
    write(ID, [episode(4, rng)])
    load()
    columns, _ = load()
    sound = columns["reward"].clone()
    columns["reward"].fill_(np.pi)
    assert torch.equal(load()[0]["reward"], sound)
