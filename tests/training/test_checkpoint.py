"""Checkpoints: two of them, neither ever lost to a crash or to damage of the other."""

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.training.checkpoint import DAMAGED, FILE, PREVIOUS, load_checkpoint
from mbrl_bilevel.training.checkpoint import save_checkpoint as save


def numbered(step):
    return {"a": torch.full((3, 2), float(step)), "b": torch.tensor(step)}, {"step": step}


def step_of(folder):
    tensors, state = load_checkpoint(folder, "cpu")
    assert torch.equal(tensors["a"], torch.full((3, 2), float(state["step"])))
    return state["step"]


def flip(path, position=-1):
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)


def test_the_two_newest_are_kept(tmp_path):
    assert load_checkpoint(tmp_path, "cpu") is None
    for step in (1, 2, 3):
        save(tmp_path, *numbered(step))
    assert {p.name for p in tmp_path.iterdir()} == {FILE, PREVIOUS}
    assert step_of(tmp_path) == 3
    (tmp_path / FILE).unlink()  # as a crash between the two renames leaves it: no reason to warn
    assert step_of(tmp_path) == 2


def test_one_flipped_bit_falls_back_to_the_one_before_with_a_warning(tmp_path):
    for step in (1, 2):
        save(tmp_path, *numbered(step))
    flip(tmp_path / FILE)
    with pytest.warns(UserWarning, match="its checksum does not fit .* going on from the one befo"):
        assert step_of(tmp_path) == 1
    assert (tmp_path / DAMAGED).is_file()
    save(tmp_path, *numbered(3))  # must not push the good one out in favour of the damaged one
    flip(tmp_path / FILE)
    with pytest.warns(UserWarning, match="damaged"):
        assert step_of(tmp_path) == 1


def test_both_damaged_are_named(tmp_path):
    for step in (1, 2):
        save(tmp_path, *numbered(step))
    flip(tmp_path / FILE)
    (tmp_path / PREVIOUS).write_bytes(b"garbage")
    with pytest.raises(InputError, match=f"{FILE} is damaged .*{PREVIOUS} is damaged"):
        load_checkpoint(tmp_path, "cpu")


def test_a_save_that_fails_leaves_the_newest_alone(tmp_path, monkeypatch):
    save(tmp_path, *numbered(1))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mbrl_bilevel.files.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, *numbered(2))
    assert step_of(tmp_path) == 1
    assert len(list(tmp_path.iterdir())) == 1
