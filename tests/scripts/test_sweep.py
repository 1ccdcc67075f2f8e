"""`sweep` as a user runs it; trials run one after another in this process, in place of Ray."""

import csv
import json
import os
from contextlib import contextmanager

import pytest

from mbrl_bilevel.scripts import sweep, train_model
from mbrl_bilevel.scripts.main import run
from mbrl_bilevel.scripts.sweeps import cluster
from mbrl_bilevel.scripts.sweeps.run_trial import run_trial
from mbrl_bilevel.training.folder_lock import FolderLock

DATASET = "pendulum/random-v0"
TINY = "members: 1\nhidden: 8 8\nsteps: 20\n"
FILE = f"command: train-model\ndataset: {DATASET}\nobjective: [mse, nll]\nseed: [0, 1]\n{TINY}"
NAMES = [f"objective={objective},seed={seed}" for objective in ("mse", "nll") for seed in (0, 1)]


class Here:
    """Trials in this process, each as it is asked for."""

    def __init__(self):
        self.orders, self.stop_after = [], None

    def capacity(self):
        return 1

    def start(self, order):
        self.orders.append(order)

    def ended(self, seconds):
        if self.stop_after is not None and len(self.orders) > self.stop_after:
            raise KeyboardInterrupt
        return [run_trial(self.orders[-1])]

    def stop(self):
        self.stopped = True


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        made = ("collect", "--env", "Pendulum-v1", "--policy", "random", "--steps", "2000")
        assert run([*made, "--dataset", DATASET]) == 0
        yield folder


@pytest.fixture
def here(datasets, monkeypatch):
    found = Here()

    @contextmanager
    def connected(address, cpus, gpus):
        yield found

    monkeypatch.setattr(sweep, "connected", connected)
    monkeypatch.setattr(sweep, "require_ray", lambda: None)
    for name in ("TQDM_DISABLE", "TF_CPP_MIN_LOG_LEVEL", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return found


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(FILE)
    return path


def rows_of(out):
    with open(out / "results.csv", newline="") as table:
        return list(csv.DictReader(table))


def test_every_combination_is_trained_evaluated_and_in_the_table(here, file, tmp_path, capsys):
    file.write_text(FILE + "then: {command: eval-model, horizons: 1 10}\n")
    out = tmp_path / "out"
    assert run(["sweep", str(file), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = rows_of(out)
    assert [row["trial"] for row in rows] == [
        name for run in NAMES for name in (run, f"{run},eval-model")
    ]
    assert len(found["trials"]) == 8
    assert found["failed"] == {}
    for row in rows:
        assert row["steps"] == "20"
        folder = out / "trials" / row["trial"]
        if row["command"] == "train-model":
            summary = json.loads((folder / "summary.json").read_text())
            assert float(row["test_nll"]) == summary["test"]["nll"]
            assert row["objective"] == summary["objective"]
            assert int(row["seed"]) == summary["seed"]
            (events,) = folder.glob("events.out.tfevents.*[0-9]")
            assert b"_hparams_/session_start_info" in events.read_bytes()
        else:
            trained = next(r for r in rows if r["trial"] == row["trial"].split(",eval")[0])
            assert float(row["rmse"]) == pytest.approx(float(trained["test_rmse"]), rel=1e-6)
            assert row["eval-model.horizons"] == "1 10"


def test_finished_trials_are_kept_and_a_larger_sweep_runs_the_new_ones(here, file, tmp_path):
    out = tmp_path / "out"
    small = ["sweep", str(file), "--out", str(out), "--set", "seed=0,1", "objective=nll,mse"]
    assert run(small) == 0
    before = (out / "results.csv").read_text()
    assert run(small) == 0
    assert len(here.orders) == 4
    assert (out / "results.csv").read_text() == before
    assert run([*small[:-3], "--set", "seed=1,2", "objective=nll,mse"]) == 2
    assert len(rows_of(out)) == 4
    assert run([*small[:-3], "--set", "seed=0,1,2", "objective=nll,mse"]) == 0
    assert [order.name for order in here.orders[4:]] == [
        "objective=nll,seed=2",
        "objective=mse,seed=2",
    ]
    assert [row["seed"] for row in rows_of(out)] == ["0", "1", "2"] * 2


def test_a_failed_trial_does_not_stop_the_others_and_is_tried_again(
    here, file, tmp_path, monkeypatch, capsys
):
    real, broken = train_model.run, [True]

    def train(config):
        if config.run.seed == 1 and broken[0]:
            raise SystemExit("mbrl-bilevel train-model: diverged at step 3")
        return real(config)

    monkeypatch.setattr(train_model, "run", train)
    flags = ["sweep", str(file), "--out", str(tmp_path / "out")]
    assert run(flags) == 1
    captured = capsys.readouterr()
    assert f"failed: {NAMES[1]}: diverged at step 3" in captured.out.splitlines()
    assert "2 of 4 trials finished, 0 of them before" in captured.out.splitlines()
    assert [row["trial"] for row in rows_of(tmp_path / "out")] == [NAMES[0], NAMES[2]]
    broken[0] = False
    assert run(flags) == 0
    assert "4 of 4 trials finished, 2 of them before" in capsys.readouterr().out.splitlines()
    assert [row["trial"] for row in rows_of(tmp_path / "out")] == NAMES


def test_ctrl_c_leaves_what_is_finished_and_says_how_to_continue(here, file, tmp_path, capsys):
    here.stop_after = 2
    flags = ["sweep", str(file), "--out", str(tmp_path / "out")]
    assert run(flags) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert "interrupted; 2 of 4 trials are finished" in said
    assert "the same command goes on with the others" in said
    assert here.stopped
    assert len(rows_of(tmp_path / "out")) == 2
    here.stop_after = None
    assert run(flags) == 0
    assert [row["trial"] for row in rows_of(tmp_path / "out")] == NAMES


def test_orders_say_where_trials_compute_and_write(here, file, tmp_path):
    file.write_text(
        "command: train-agent\nagent: bc\n"
        f"dataset: {DATASET}\nthen: {{command: eval-agent, agent: policy, episodes: 2}}\n"
    )
    here.stop_after = 0
    flags = ["--cpus-per-trial", "3", "--gpus-per-trial", "0.5"]
    assert run(["sweep", str(file), "--out", str(tmp_path / "out"), *flags]) == 130
    (order,) = here.orders
    path = tmp_path / "out" / "trials" / "train-agent"
    assert order.words[-6:] == ["--device", "cuda", "--out", str(path), "--threads", "3"]
    assert order.cpus == 3
    assert order.environment["MINARI_DATASETS_PATH"] == os.environ["MINARI_DATASETS_PATH"]


def test_a_dry_run_lists_commands_and_writes_nothing(here, file, tmp_path, capsys):
    assert run(["sweep", str(file), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == [*NAMES, "4 trials, none run"]
    assert lines[1].strip().startswith(f"train-model --seed 0 --dataset {DATASET} --objective mse")
    assert list(tmp_path.iterdir()) == [file]
    assert here.orders == []


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--set", "stepz=3"], "--stepz is no flag of train-model"),
        (["--set", "steps=0"], "--steps 0: choose at least 1"),
        (["--set", "dataset=no/data-v0"], "no data set 'no/data-v0'"),
        (["--set", "command=bench"], "command: bench: choose one of"),
        (["--device", "cuda"], "--device cuda: say how many GPUs"),
        (["--device", "cpu", "--gpus-per-trial", "1"], "--gpus-per-trial 1 of --device cpu"),
        (["--cpus-per-trial", "0"], "--cpus-per-trial 0: choose at least 1"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    here, file, tmp_path, capsys, flags, sentence
):
    assert run(["sweep", str(file), "--out", str(tmp_path / "out"), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert not (tmp_path / "out").exists()
    assert here.orders == []


def test_a_folder_is_needed_and_one_that_another_sweep_writes_to_is_refused(
    here, file, tmp_path, capsys
):
    assert run(["sweep", str(file)]) == 2
    assert "name the folder of the sweep by --out" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    lock = FolderLock(tmp_path / "out")
    assert run(["sweep", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "another run is writing" in capsys.readouterr().err
    lock.release()
    assert here.orders == []


def test_without_ray_the_remedy_is_named(datasets, file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    assert run(["sweep", str(file), "--out", str(tmp_path / "out")]) == 2
    assert 'pip install "mbrl-bilevel[sweep]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
