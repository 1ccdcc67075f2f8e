"""train-model and eval-model as a user runs them, on small real data."""

import json

import pytest
import torch

from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts.main import run

DATASET = "pendulum/random-v0"
SMALL = ("--members", "2", "--hidden", "32", "32", "--steps", "300")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """A real data set of 10 episodes of Pendulum-v1, and the folder that Minari keeps it in."""
    folder = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        made = ("collect", "--env", "Pendulum-v1", "--policy", "random", "--steps", "2000")
        assert run([*made, "--dataset", DATASET]) == 0
        yield folder


def train(out, *flags):
    return run(["train-model", "--dataset", DATASET, "--out", str(out), *SMALL, *flags])


def last_json(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_trained_model_predicts_a_pendulum(datasets, tmp_path, capsys):
    """300 steps explain most of the change; a model that has learned nothing has R2 = 0."""
    assert train(tmp_path / "run", "--json") == 0
    trained = last_json(capsys)
    assert trained["run"] == str(tmp_path / "run")
    assert trained["test"]["r2"] > 0.7
    assert run(["eval-model", "--model", str(tmp_path / "run"), "--json"]) == 0
    judged = last_json(capsys)
    assert {"rmse", "nll", "r2", "ece", "k_step"} <= judged.keys()
    assert judged["rmse"] == pytest.approx(trained["test"]["rmse"], rel=1e-6)
    assert judged["k_step"].keys() == {"1", "10", "50"}
    assert judged["k_step"]["1"] < judged["k_step"]["50"]
    files = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "metrics.jsonl", "model.safetensors", "summary.json"} <= files
    assert any(name.startswith("events.out.tfevents") for name in files)
    pictures = {p.name for p in (tmp_path / "run/figures").iterdir()}
    assert pictures == {"error_by_dimension.png", "calibration.png", "error_growth.png"}


def test_the_same_seed_trains_the_same_model_and_another_seed_another(datasets, tmp_path):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert train(tmp_path / name, "--seed", seed) == 0
    a, b, c = (DynamicsModel.load(tmp_path / name).state_dict() for name in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_a_finished_run_resumes_to_the_same_end(datasets, tmp_path, capsys):
    assert train(tmp_path / "run", "--json") == 0
    first = last_json(capsys)
    assert train(tmp_path / "run", "--resume", "--json") == 0
    again = last_json(capsys)
    assert again["test"] == first["test"]
    assert again["steps"] == first["steps"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--objective", "mse"],
        ["--objective", "pg"],
        ["--objective", "pg", "--reward", "scalar", "--inner-estimator", "reparameterized"],
        ["--objective", "pg", "--reward", "full", "--covariance", "full"],
        ["--objective", "bilevel"],
        ["--objective", "bilevel", "--weights", "power", "--outer-data", "held_out"],
        ["--objective", "bilevel", "--hypergradient", "fisher"],
        [
            *("--objective", "bilevel", "--reward", "neural", "--hypergradient", "implicit"),
            *("--inner-estimator", "reparameterized"),
        ],
    ],
    ids=" ".join,
)
def test_every_objective_learns_from_the_command_line(datasets, tmp_path, capsys, flags):
    """R2 of a model that has learned nothing is 0; its NLL is that of a unit Gaussian, 1.42."""
    assert train(tmp_path / "run", *flags, "--json") == 0
    test = last_json(capsys)["test"]
    assert test["r2"] > 0.5
    assert test["nll"] < 1.2
    figures = tmp_path / "run/figures"
    assert figures.exists() == ("bilevel" in flags)


def test_elites_are_the_best_members_by_held_out_error(datasets, tmp_path, capsys):
    assert train(tmp_path / "run", "--elites", "1", "--json") == 0
    model = DynamicsModel.load(tmp_path / "run")
    assert len(model.elites) == 1


BAD = {
    "unknown data set": (["--dataset", "nobody/nothing-v0"], "nobody/nothing-v0"),
    "id that leaves its folder": (["--dataset", "../escape"], "../escape"),
    "another environment": (["--env", "Hopper-v5"], "Hopper-v5"),
    "no steps": (["--steps", "0"], "0 training steps"),
    "no batch": (["--batch-size", "0"], "batch size of 0"),
    "no members": (["--members", "0"], "0 members"),
    "beta out of range": (["--objective", "beta_nll", "--beta", "2"], "beta 2"),
    "too many elites": (["--elites", "9"], "elites"),
    "resume of nothing": (["--resume"], "no run to continue"),
    "no entropy": (["--objective", "pg", "--entropy-weight", "0"], "entropy weight"),
    "pg of a reward to learn": (["--objective", "pg", "--reward", "neural"], "no closed form"),
    "nothing to learn": (["--objective", "bilevel", "--reward", "identity"], "nothing is left"),
    "full reward, diagonal model": (
        ["--objective", "bilevel", "--reward", "full"],
        "too small",
    ),
    "neural reward, exact": (
        ["--objective", "bilevel", "--reward", "neural"],
        "--inner-estimator reparameterized",
    ),
    "gate of another reward": (
        ["--objective", "bilevel", "--weights", "learned", "--reward", "scalar"],
        "--reward diagonal_x",
    ),
    "one member alone": (["--objective", "bilevel", "--members", "1"], "held-out outer data"),
    "fisher of a full model": (
        ["--objective", "bilevel", "--covariance", "full", "--hypergradient", "fisher"],
        "fisher is for --covariance diagonal",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(datasets, tmp_path, capsys, name):
    flags, words = BAD[name]
    assert train(tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mbrl-bilevel train-model: ")
    assert words in error


def test_an_output_folder_with_another_run_is_left_alone(datasets, tmp_path, capsys):
    assert train(tmp_path / "run") == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()}
    assert train(tmp_path / "run") == 2
    assert "not empty" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "nowhere"], "nowhere holds no model"),
        (["--horizons", "0"], "at least 1"),
    ],
)
def test_eval_model_refuses_bad_input(datasets, tmp_path, capsys, flags, words):
    assert train(tmp_path / "run") == 0
    assert run(["eval-model", "--model", str(tmp_path / "run"), *flags]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
