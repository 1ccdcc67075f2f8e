"""Run folders: nothing is overwritten, and a resumed run forgets what came after its checkpoint."""

import json
import os
from pathlib import Path

import pytest

from mbrl_bilevel.errors import InputError
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


def test_resume_says_that_a_run_began_before_a_setting_was_known(tmp_path):
    RunFolder(tmp_path, {"steps": 10}).__exit__(None, None, None)
    with pytest.raises(InputError, match="began before there was a setting temperature"):
        RunFolder(tmp_path, {"steps": 10, "temperature": None}, resume=True)


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


def test_metrics_after_a_damaged_line_are_dropped(tmp_path):
    folder = started(tmp_path / "run")
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"st\x00p": 2}\n{"step": 3}\n')
    with RunFolder(folder, {"steps": 10, "dataset": "a"}, resume=True) as run:
        run.continue_from(5)
    assert (folder / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_second_run_is_refused_while_the_first_goes_on(tmp_path):
    config = {"steps": 10, "dataset": "a"}
    with RunFolder(tmp_path / "run", config):
        for resume in (False, True):
            with pytest.raises(InputError, match="another run is writing to"):
                RunFolder(tmp_path / "run", config, resume=resume)
    with RunFolder(tmp_path / "run", config, resume=True):
        pass


def test_what_a_run_leaves_that_died_at_its_start_is_no_obstacle(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.yaml").write_text("ste")
    with RunFolder(tmp_path, {"steps": 10}):
        pass
    assert (tmp_path / "config.yaml").read_text() == "steps: 10\n"


def test_bad_input_before_the_first_step_leaves_no_folder(tmp_path):
    def fail(path):
        with RunFolder(path, {"steps": 0}):
            raise InputError("0 steps")

    (tmp_path / "there").mkdir()
    for name in ("new", "new/deeper/run", "there", "there/deeper/run"):
        with pytest.raises(InputError):
            fail(tmp_path / name)
    assert not (tmp_path / "new").exists()
    assert not any((tmp_path / "there").iterdir())


def test_bad_input_after_it_leaves_the_run_as_it_is(tmp_path):
    folder = started(tmp_path / "run")
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    before = {p.name for p in folder.iterdir()}
    with pytest.raises(InputError), RunFolder(folder, {"steps": 10, "dataset": "a"}, resume=True):
        raise InputError("bad")
    assert {p.name for p in folder.iterdir()} == before
