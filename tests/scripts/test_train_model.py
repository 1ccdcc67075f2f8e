"""train-model and eval-model as a user runs them, on small real data."""

import json
import os
import shutil
from pathlib import Path

import h5py
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mbrl_bilevel import products
from mbrl_bilevel.bilevel.implicit import Implicit
from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.data.split import split
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives import named_outer_steps
from mbrl_bilevel.objectives.new_model import new_model
from mbrl_bilevel.objectives.settings import TwoMeansSettings
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


@pytest.fixture
def plain_products():
    """This process multiplies as before, afterwards."""
    yield
    products.plain_products()


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
    evaluated = last_json(capsys)
    assert {"rmse", "nll", "r2", "ece", "k_step"} <= evaluated.keys()
    assert evaluated["rmse"] == pytest.approx(trained["test"]["rmse"], rel=1e-6)
    assert {"1", "10", "50"} <= evaluated["k_step"].keys()
    assert evaluated["k_step"]["1"] < evaluated["k_step"]["50"]
    assert {p.parent for p in tmp_path.rglob("events.out.tfevents.*")} == {tmp_path / "run"}
    events = EventAccumulator(str(tmp_path / "run")).Reload()  # training and evaluation: one run
    held_out, rmse, curve = (
        events.Scalars(tag) for tag in ("held_out/mse", "eval/rmse", "eval/k_step")
    )
    assert held_out[-1].step == rmse[-1].step == trained["steps"]
    assert events.Scalars("test/rmse")[-1].value == pytest.approx(rmse[-1].value, rel=1e-6)
    assert curve[49].value == pytest.approx(evaluated["k_step"]["50"], rel=1e-6)
    files = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "metrics.jsonl", "model.safetensors", "summary.json"} <= files
    assert any(name.startswith("events.out.tfevents") for name in files)
    pictures = {p.name for p in (tmp_path / "run/figures").iterdir()}
    assert pictures >= {"error_by_dimension.png", "calibration.png", "error_growth.png"}


def test_the_same_seed_trains_the_same_model_and_another_seed_another(datasets, tmp_path):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert train(tmp_path / name, "--seed", seed) == 0
    a, b, c = (DynamicsModel.load(tmp_path / name).state_dict() for name in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_bf16_is_refused_where_the_cpu_has_none_of_it(datasets, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(products, "multiplies_bf16", lambda: False)
    assert train(tmp_path / "run", "--precision", "bf16") == 2
    assert "--precision bf16: this CPU does not multiply bfloat16" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_bf16_is_refused_under_an_outer_level(datasets, tmp_path, capsys):
    assert train(tmp_path / "run", "--precision", "bf16", "--objective", "bilevel") == 2
    assert "bilevel: its outer level needs float32 products" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_bf16_trains_a_model_that_predicts_as_well(datasets, tmp_path, capsys, plain_products):
    """Steps of 1 in 256 in the factors are far below what the model does not know."""
    if not products.multiplies_bf16():
        pytest.skip("a CPU that does not multiply bfloat16 numbers")
    r2 = {}
    for precision in ("float32", "bf16"):
        out = tmp_path / precision
        assert train(out, "--precision", precision, "--json") == 0
        r2[precision] = last_json(capsys)["test"]["r2"]
        assert yaml.safe_load((out / "config.yaml").read_text())["precision"] == precision
    assert r2["bf16"] != r2["float32"]
    assert r2["bf16"] > 0.7
    assert train(tmp_path / "bf16", "--resume") == 2
    assert "precision is float32 now and was bf16" in capsys.readouterr().err


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
        ["--objective", "two_means"],
        ["--objective", "residual_reward", "--outer-data", "held_out"],
        pytest.param(
            ["--objective", "bilevel", "--hypergradient", "fisher"], marks=pytest.mark.slow
        ),
        pytest.param(
            ["--objective", "bilevel", "--hypergradient", "ma_soba"], marks=pytest.mark.slow
        ),
        pytest.param(
            ["--objective", "bilevel", "--hypergradient", "unrolled"], marks=pytest.mark.slow
        ),
        pytest.param(["--objective", "bilevel", "--hypergradient", "soba"], marks=pytest.mark.slow),
        pytest.param(
            ["--objective", "bilevel", "--hypergradient", "value_gap"], marks=pytest.mark.slow
        ),
        [
            *("--objective", "bilevel", "--outer-objective", "one_step", "--reward", "neural"),
            *("--inner-estimator", "reparameterized"),
        ],
        ["--objective", "bilevel", "--outer-objective", "one_step", "--hypergradient", "ma_soba"],
        pytest.param(
            ["--objective", "bilevel", "--outer-objective", "one_step"], marks=pytest.mark.slow
        ),
    ],
    ids=" ".join,
)
def test_every_objective_learns_from_the_command_line(datasets, tmp_path, capsys, flags):
    """R2 of a model that has learned nothing is 0; its NLL is that of a unit Gaussian, 1.42."""
    assert train(tmp_path / "run", *flags, "--json") == 0
    found = last_json(capsys)
    test, learned = found["test"], found["learned_U"]
    assert test["r2"] > 0.5
    assert test["nll"] < 1.2
    figures = tmp_path / "run/figures"
    assert figures.exists() == (flags[1] in ("two_means", "residual_reward", "bilevel"))
    assert (learned is not None) == (figures / "learned_U.png").exists()
    assert learned is None or (
        len(learned) == test["varying_targets"] and min(learned.values()) > 0
    )


def test_a_cold_restart_trains_a_fresh_model_under_the_learned_reward(datasets, tmp_path, capsys):
    """Both are models of the same data under the same reward, from different initial weights."""
    assert train(tmp_path / "run", "--objective", "two_means", "--cold-restart", "--json") == 0
    found = last_json(capsys)
    both = found["cold_restart"]
    assert both["warm"]["held_out_nll"] == found["held_out_nll"]
    assert both["warm"]["test_mse"] == pytest.approx(found["test"]["rmse"] ** 2)
    assert both["cold"].keys() == both["warm"].keys()
    assert both["cold"]["test_mse"] != both["warm"]["test_mse"]
    assert both["cold"]["test_mse"] < 0.5  # of the variance 1 of a standardised target
    # errors of the size of the target would cost several nats: the reward is sure of itself
    assert both["warm"]["test_nll"] < both["cold"]["test_nll"] < 2.0
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 300  # the restart has no curves in the run's


def test_standardisers_are_fitted_on_the_training_part_alone(datasets, tmp_path):
    assert train(tmp_path / "run") == 0
    model = DynamicsModel.load(tmp_path / "run")
    part, *_ = split(load_dataset(DATASET).transitions)
    again = DynamicsModel(3, 1, ModelSettings(members=1, hidden=(4,)), learn_reward=False)
    again.fit_standardizers(part)
    for name, buffer in again.named_buffers():
        if "standard" in name:
            assert torch.equal(buffer, dict(model.named_buffers())[name]), name


def test_the_outer_level_never_sees_what_its_member_was_fitted_to(datasets):
    """No episode of a member stands on both sides, by default."""
    dataset, generator = load_dataset(DATASET), torch.Generator().manual_seed(0)
    part, held_out, _ = split(dataset.transitions)
    model = new_model(dataset, TwoMeansSettings(), ModelSettings(members=2), generator=generator)
    model.fit_standardizers(part)
    objective = TwoMeansSettings().build(model, part, held_out, steps=10, generator=generator)
    outer_rows = objective.outer.batches.batches.rows
    for inner, outer in zip(objective.rows, outer_rows, strict=True):
        assert not set(part.episode[inner].tolist()) & set(part.episode[outer].tolist())


def test_a_divergent_run_is_one_sentence_exit_code_1_and_no_model(datasets, tmp_path, capsys):
    flags = ("--learning-rate", "1e8", "--clip-norm", "1e30", "--schedule", "constant")
    flags += ("--weight-decay", "0")
    with pytest.raises(SystemExit) as left:
        train(tmp_path / "run", *flags)
    assert str(left.value).startswith("mbrl-bilevel train-model: training diverged by step ")
    assert "\n" not in str(left.value)
    assert not (tmp_path / "run/model.safetensors").exists()
    assert not (tmp_path / "run/checkpoint.safetensors").exists()


@pytest.mark.filterwarnings("default::mbrl_bilevel.bilevel.hypergradient.ConvergenceWarning")
def test_a_warning_is_one_line_under_the_progress_bar(datasets, tmp_path, capsys, monkeypatch):
    def strict(*arguments, **named):
        return Implicit(*arguments, **{**named, "max_residual": 1e-6})

    monkeypatch.setattr(named_outer_steps, "Implicit", strict)
    flags = ("--objective", "bilevel", "--hypergradient", "fisher", "--steps", "40")
    assert train(tmp_path / "run", *flags) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "unsolved" in line]
    assert len(lines) == 1
    assert "warning: the hypergradient's linear system was left unsolved" in lines[0]
    assert ".py:" not in lines[0]


def test_the_next_command_can_be_pasted_whatever_the_folder_is_called(datasets, tmp_path, capsys):
    assert train(tmp_path / "a run", "--steps", "20") == 0
    captured = capsys.readouterr()
    assert f"eval-model --model '{tmp_path}/a run'" in captured.out
    assert f"--logdir '{tmp_path}/a run'" in captured.err


def test_elites_are_the_best_members_by_held_out_error(datasets, tmp_path, capsys):
    assert train(tmp_path / "run", "--elites", "1", "--json") == 0
    model = DynamicsModel.load(tmp_path / "run")
    assert len(model.elites) == 1


BAD = {
    "unknown data set": (["--dataset", "nobody/nothing-v0"], "nobody/nothing-v0"),
    "id that leaves its folder": (["--dataset", "../escape"], "../escape"),
    "another environment": (["--env", "Hopper-v5"], "Hopper-v5"),
    "no steps": (["--steps", "0"], "--steps 0: choose "),
    "no batch": (["--batch-size", "0"], "--batch-size 0: choose "),
    "no members": (["--members", "0"], "--members 0: choose "),
    "beta out of range": (["--objective", "beta_nll", "--beta", "2"], "beta 2"),
    "too many elites": (["--elites", "9"], "elites"),
    "resume of nothing": (["--resume"], "no run to continue"),
    "no entropy": (["--objective", "pg", "--entropy-weight", "0"], "--entropy-weight 0.0: choose "),
    "pg of a reward to learn": (
        ["--objective", "pg", "--reward", "neural"],
        "--reward neural: choose one of identity",
    ),
    "nothing to learn": (
        ["--objective", "bilevel", "--reward", "identity"],
        "--reward identity: choose one of scalar",
    ),
    "full reward, diagonal model": (
        ["--objective", "bilevel", "--outer-objective", "one_step", "--reward", "full"],
        "too small",
    ),
    "neural reward, exact": (
        ["--objective", "bilevel", "--outer-objective", "one_step", "--reward", "neural"],
        "--inner-estimator reparameterized",
    ),
    "gate of another reward": (
        ["--objective", "two_means", "--reward", "scalar"],
        "--reward scalar is no setting of objective two_means",
    ),
    "no entropy of a learned reward": (
        ["--objective", "bilevel", "--entropy-weight", "-1"],
        "--entropy-weight -1.0: choose ",
    ),
    "no transitions": (["--max-transitions", "0"], "--max-transitions 0: "),
    "fewer transitions than none": (["--max-transitions", "-5"], "--max-transitions -5: "),
    "rows for no outer fold": (
        ["--objective", "two_means", "--members", "3000", "--hidden", "1"],
        "held-out outer data",
    ),
    "a learning rate below 0": (["--learning-rate", "-1"], "--learning-rate -1.0: choose "),
    "no outer learning rate": (
        ["--objective", "bilevel", "--outer-learning-rate", "0"],
        "--outer-learning-rate 0.0: choose ",
    ),
    "windows longer than the episodes": (
        ["--objective", "bilevel", "--outer-horizon", "1000"],
        "--outer-horizon 1000: the episodes that a member leaves out",
    ),
    "no gradient norm": (["--clip-norm", "0"], "--clip-norm 0.0: choose "),
    "cold restart without a reward": (["--cold-restart"], "it has no outer level"),
    "soba of a full model": (
        [
            *("--objective", "bilevel", "--outer-objective", "one_step", "--covariance", "full"),
            *("--hypergradient", "soba"),
        ],
        "soba is for --covariance diagonal",
    ),
    "one member alone": (["--objective", "two_means", "--members", "1"], "held-out outer data"),
    "two means of a full model": (
        ["--objective", "two_means", "--covariance", "full"],
        "goes with a diagonal covariance; choose another objective",
    ),
    "fisher of a full model": (
        [
            *("--objective", "bilevel", "--outer-objective", "one_step", "--covariance", "full"),
            *("--hypergradient", "fisher"),
        ],
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


@pytest.mark.situation("right")
def test_a_data_set_in_a_relative_folder_is_found_from_elsewhere(
    datasets, tmp_path, capsys, monkeypatch
):
    shutil.copytree(Path(os.environ["MINARI_DATASETS_PATH"]) / DATASET, tmp_path / "f-v0")
    monkeypatch.chdir(tmp_path)
    assert train(tmp_path / "run", "--dataset", "./f-v0", "--steps", "20") == 0
    monkeypatch.chdir("/")
    assert run(["eval-model", "--model", str(tmp_path / "run"), "--horizons", "1"]) == 0
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert config["dataset"] == str(tmp_path / "f-v0")


@pytest.mark.situation("refused")
def test_a_run_does_not_go_on_with_data_that_have_changed(datasets, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(Path(os.environ["MINARI_DATASETS_PATH"]) / DATASET, data)
    flags = ("--dataset", str(data), "--steps", "20")
    assert train(tmp_path / "run", *flags) == 0
    os.utime(data / "data/main_data.hdf5", (1, 1))
    assert train(tmp_path / "run", *flags, "--resume") == 0
    with h5py.File(data / "data/main_data.hdf5", "a") as file:
        file["episode_0/actions"][3] = 0.25
    before = (tmp_path / "run/config.yaml").read_text()
    assert train(tmp_path / "run", *flags, "--resume") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "has changed since the run in" in error
    assert "(other actions)" in error
    assert (tmp_path / "run/config.yaml").read_text() == before


@pytest.mark.situation("refused")
def test_a_run_does_not_go_on_with_another_data_set_which_has_not_changed(
    datasets, tmp_path, capsys
):
    assert train(tmp_path / "run", "--steps", "20") == 0
    copied = tmp_path / "copy"
    shutil.copytree(Path(os.environ["MINARI_DATASETS_PATH"]) / DATASET, copied)
    with h5py.File(copied / "data/main_data.hdf5", "a") as file:
        file["episode_0/actions"][3] = 0.25
    assert train(tmp_path / "run", "--steps", "20", "--resume", "--dataset", str(copied)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"dataset is {copied} now and was {DATASET} when the run in" in error


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
