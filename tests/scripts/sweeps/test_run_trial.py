"""One trial as a node runs it, here in this process."""

import json
import os
import threading
import time

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import read_json
from mbrl_bilevel.scripts import train_model
from mbrl_bilevel.scripts.command import Outcome
from mbrl_bilevel.scripts.sweeps import run_trial as module
from mbrl_bilevel.scripts.sweeps.folder import SweepFolder, last_lines
from mbrl_bilevel.scripts.sweeps.run_trial import Order, run_trial
from mbrl_bilevel.training.folder_lock import FolderLock


@pytest.fixture(autouse=True)
def environment_as_it_was(monkeypatch):
    for name in ("TQDM_DISABLE", "TF_CPP_MIN_LOG_LEVEL", "GOMP_SPINCOUNT", "SWEPT"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


@pytest.fixture
def folder(tmp_path):
    made = SweepFolder(tmp_path)
    made.make({})
    return made


@pytest.fixture
def configs(monkeypatch):
    """Configurations that the command was called with; it only returns a result."""
    found = []

    def run(config):
        found.append(config)
        print("trained")
        return Outcome({"steps": config.fit.steps}, "")

    monkeypatch.setattr(train_model, "run", run)
    return found


def order(folder, name="one", submission="first"):
    run = folder.run(name)
    words = ["train-model", "--dataset", "my/data-v0", "--steps", "30", "--out", str(run)]
    there = {"SWEPT": "yes"}
    return Order(name, words, run, True, folder.path, 1, submission, os.getcwd(), there)


def test_a_trial_leaves_its_result_what_it_said_and_where_it_began(folder, configs):
    assert run_trial(order(folder)).state == "finished"
    (config,) = configs
    assert (config.fit.steps, config.run.resume, config.run.out) == (30, False, folder.run("one"))
    found = read_json(folder.result("one"))
    assert found["results"] == {"steps": 30}
    assert found["starts"] == 1
    assert folder.log("one").read_text() == "trained\n"
    (start,) = last_lines(folder.starts("one"))
    assert (start["step"], start["pid"]) == (0, os.getpid())
    assert os.environ["SWEPT"] == "yes"


def test_a_finished_trial_is_left_alone(folder, configs):
    run_trial(order(folder))
    before = folder.result("one").read_bytes()
    assert run_trial(order(folder, submission="second")).state == "finished"
    assert len(configs) == 1
    assert folder.result("one").read_bytes() == before


def test_a_run_that_was_begun_goes_on(folder, configs):
    folder.run("one").mkdir()
    (folder.run("one") / "config.yaml").touch()
    folder.starts("one").write_text('{"submission": "lost", "step": 0, "node": "a"}\n')
    assert run_trial(order(folder)).state == "finished"
    assert configs[0].run.resume
    assert read_json(folder.result("one"))["starts"] == 2


@pytest.mark.parametrize(
    ("error", "state", "sentence"),
    [
        (InputError("bad data: mend them"), "failed", "bad data: mend them"),
        (SystemExit("mbrl-bilevel train-model: diverged"), "failed", "diverged"),
        (OSError(28, "No space left"), "failed", "[Errno 28] No space left"),
        (KeyError("lost"), "failed", "KeyError: 'lost'; see"),
        (KeyboardInterrupt("at step 3"), "stopped", "at step 3"),
    ],
)
def test_whatever_a_trial_raises_is_its_report(folder, monkeypatch, error, state, sentence):
    def run(config):
        raise error

    monkeypatch.setattr(train_model, "run", run)
    report = run_trial(order(folder))
    assert (report.name, report.state) == ("one", state)
    assert report.sentence.startswith(sentence)
    assert not folder.result("one").exists()


def test_a_trial_whose_process_is_lost_again_and_again_is_given_up(folder, configs):
    lines = [{"submission": "first", "step": 0, "node": f"node-{i}"} for i in range(3)]
    folder.starts("one").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = run_trial(order(folder))
    assert report.state == "failed"
    assert "its process was lost 3 times at step 0 (nodes: node-0, node-1, node-2)" in (
        report.sentence
    )
    assert configs == []
    assert run_trial(order(folder, submission="by hand")).state == "finished"


def test_a_trial_waits_until_the_process_of_a_lost_node_lets_go(folder, configs):
    folder.run("one").mkdir()
    lock = FolderLock(folder.run("one"))
    began = time.monotonic()
    timer = threading.Timer(1.0, lock.release)
    timer.start()
    assert run_trial(order(folder)).state == "finished"
    assert time.monotonic() - began >= 1.0
    timer.join()


def test_a_run_that_stays_locked_is_the_command_s_to_refuse(folder, configs, monkeypatch):
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.2)
    folder.run("one").mkdir()
    lock = FolderLock(folder.run("one"))
    run_trial(order(folder))
    assert len(configs) == 1
    lock.release()
