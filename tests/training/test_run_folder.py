"""Run folders: nothing is overwritten, and a resumed run forgets what came after its checkpoint."""

import json
import os
from pathlib import Path

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.training.checkpoint import FILE, load_checkpoint
from mbrl_bilevel.training.run_folder import RunFolder


def started(folder):
    with RunFolder(folder, {"steps": 10, "dataset": "a"}):
        return folder


def test_a_folder_with_anything_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        RunFolder(tmp_path, {})
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_another_run_is_refused_without_resume(tmp_path):
    with pytest.raises(InputError, match="--resume"):
        RunFolder(started(tmp_path / "run"), {"steps": 10, "dataset": "a"})


def test_resume_refuses_another_configuration(tmp_path):
    with pytest.raises(InputError, match="dataset is b now and was a"):
        RunFolder(started(tmp_path / "run"), {"steps": 10, "dataset": "b"}, resume=True)


def test_resume_refuses_a_folder_without_a_run(tmp_path):
    with pytest.raises(InputError, match="no run to continue"):
        RunFolder(tmp_path / "nothing", {}, resume=True)


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        RunFolder(tmp_path / "file", {})


def test_a_folder_that_cannot_be_made_is_refused():
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder(Path(os.devnull) / "run", {})


def test_metrics_past_the_checkpoint_are_dropped(tmp_path):
    folder = started(tmp_path / "run")
    lines = [json.dumps({"step": s}) for s in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 4, "cut')
    with RunFolder(folder, {"steps": 10, "dataset": "a"}, resume=True) as run:
        run.continue_from(2)
    assert (folder / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_damaged_checkpoint_is_named(tmp_path):
    assert load_checkpoint(tmp_path, "cpu") is None
    (tmp_path / FILE).write_bytes(b"garbage")
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(tmp_path, "cpu")
