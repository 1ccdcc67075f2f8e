"""eval-model as a user runs it, on models of a pendulum that nobody had to train."""

import json
import math
import os
import shutil
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import minari
import numpy as np
import pytest
import torch
import yaml
from minari.data_collector import EpisodeBuffer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.data.split import split
from mbrl_bilevel.evaluation import figures
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.scripts.main import run
from mbrl_bilevel.scripts.training_data import described
from mbrl_bilevel.training.folder_lock import FolderLock

DATASET, OTHER = "pendulum/random-v0", "pendulum/other-v0"
CONTRACT = {"rmse", "nll", "r2", "ece", "k_step", "transitions", "source", "figures", "seed"}


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made but not rendered, which takes most of the time."""

    def save(figure, path):
        plt.close(figure)
        plt.imsave(path, np.zeros((2, 2)))
        return path

    monkeypatch.setattr(figures, "save", save)


@pytest.fixture(scope="module", autouse=True)
def datasets(tmp_path_factory):
    """Ten episodes of 200 steps of Pendulum-v1, and two more in another data set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        for name, steps, env in (
            (DATASET, 2000, "Pendulum-v1"),
            (OTHER, 400, "Pendulum-v1"),
            ("reacher/random-v0", 100, "Reacher-v5"),
        ):
            made = ("collect", "--env", env, "--policy", "random", "--dataset", name)
            assert run([*made, "--steps", str(steps)]) == 0
        yield


def save_model(folder, seed=0, trained_on=DATASET, rows=None, env_id="Pendulum-v1", **settings):
    """An untrained model with the statistics of its training part, and its config.yaml."""
    data = load_dataset(trained_on)
    train = split(data.transitions, seed, max_transitions=rows)[0]
    model = DynamicsModel(
        train.observation.shape[1],
        train.action.shape[1],
        ModelSettings(members=2, hidden=(8,)),
        env_id=env_id,
        generator=torch.Generator().manual_seed(seed),
        **settings,
    )
    model.fit_standardizers(train)
    model.save(folder)
    config = {"seed": seed, "max_transitions": rows} | described(trained_on, data)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def evaluate(capsys, *flags):
    assert run(["eval-model", "--json", *map(str, flags)]) == 0
    found = capsys.readouterr()
    return json.loads(found.out.splitlines()[-1], parse_constant=pytest.fail), found.err


def test_one_model_leaves_its_figures_everywhere(tmp_path, capsys):
    folder = save_model(tmp_path / "run")
    found, text = evaluate(capsys, "--model", folder)
    assert found.keys() >= CONTRACT
    assert found["k_step"].keys() == {"1", "10", "50", "100"}
    for key in ("k_step_linear", "k_step_persistence", "k_step_starts"):
        assert found[key].keys() == found["k_step"].keys()
    assert found["k_step_coverage"]["90"].keys() == found["k_step"].keys()
    assert found["k_step_linear"]["1"] < found["k_step_persistence"]["1"]
    assert json.loads((folder / "evaluation.json").read_text()) == found
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "calibration.png",
        "error_by_dimension.png",
        "error_growth.png",
        "predicted_fan.png",
    }
    assert "RMSE after 100 steps" in text
    events = EventAccumulator(str(folder)).Reload()
    assert events.Scalars("eval/rmse")[0].value == pytest.approx(found["rmse"])
    curve = {point.step: point.value for point in events.Scalars("eval/k_step")}
    assert curve[10] == pytest.approx(found["k_step"]["10"])
    assert "eval/predicted_fan" in events.Tags()["images"]


def test_a_second_evaluation_replaces_the_first(tmp_path, capsys, undrawn):
    folder = save_model(tmp_path / "run")
    first, _ = evaluate(capsys, "--model", folder, "--horizons", "1", "5")
    again, _ = evaluate(capsys, "--model", folder, "--horizons", "1", "5")
    assert again == first
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    longer, _ = evaluate(capsys, "--model", folder, "--horizons", "5", "20")
    assert longer["k_step"]["5"] == pytest.approx(first["k_step"]["5"], rel=1e-5)


def test_while_the_training_writes_its_events_are_left_alone(tmp_path, capsys, undrawn):
    """TensorBoard reads no further in a run's events once newer ones stand beside them."""
    folder = save_model(tmp_path / "run")
    lock = FolderLock(folder)
    evaluate(capsys, "--model", folder, "--horizons", "1", "5")
    assert not list(folder.glob("events.out.tfevents.*"))
    assert len(list((folder / "eval").glob("events.out.tfevents.*"))) == 1
    lock.release()
    evaluate(capsys, "--model", folder, "--horizons", "1", "5")
    assert len(list(folder.rglob("events.out.tfevents.*"))) == 1


def test_several_models_stand_side_by_side(tmp_path, capsys, undrawn):
    folders = [save_model(tmp_path / name) for name in ("a", "b")]
    model = DynamicsModel.load(folders[1])
    with torch.no_grad():
        for p in model.network.parameters():
            p.zero_()  # predicts the mean change: better than random weights
    model.network.set_std(torch.ones(2, model.network.outputs))
    model.save(folders[1])
    found, text = evaluate(capsys, "--model", *folders, "--horizons", "1", "5")
    one, _ = evaluate(capsys, "--model", folders[1], "--horizons", "1", "5")
    assert [figures["model"] for figures in found["models"]] == [str(f) for f in folders]
    assert one["rmse"] == found["models"][1]["rmse"]
    assert one["r2"] == pytest.approx(0, abs=0.05)
    out = Path(found["figures"])
    assert out == tmp_path / "comparison-001"
    assert json.loads((out / "comparison.json").read_text()) == found
    assert (out / "comparison.png").is_file()
    assert found["mismatch"] is None
    rmse = next(line for line in text.splitlines() if line.startswith("RMSE, one step"))
    assert rmse.endswith(f"{one['rmse']:.4f}*")
    assert "2 of 2 models without results of eval-agent" in text


def test_models_of_other_splits_are_compared_only_on_the_same_data(tmp_path, capsys, undrawn):
    """Seeds 0 and 1 split the data differently, and so standardise it differently."""
    folders = [save_model(tmp_path / name, seed) for seed, name in enumerate("ab")]
    apart, text = evaluate(capsys, "--model", *folders, "--horizons", "1")
    assert "on different rows" in " ".join(apart["remarks"])
    assert "*" not in text
    together, text = evaluate(capsys, "--model", *folders, "--horizons", "1", "--dataset", OTHER)
    assert together["remarks"] == []
    assert "*" in text
    a, b = together["models"]
    assert b["units"] == a["units"] == f"standard deviations of the training part of {folders[0]}"
    alone, _ = evaluate(capsys, "--model", folders[1], "--horizons", "1", "--dataset", OTHER)
    first, second = (DynamicsModel.load(folder) for folder in folders)
    unit = second.target_standardizer.std / first.target_standardizer.std
    assert not torch.allclose(unit, torch.ones_like(unit), rtol=1e-3)
    by_dimension = torch.tensor(alone["rmse_by_dimension"]) * unit
    assert b["rmse_by_dimension"] == pytest.approx(by_dimension.tolist(), rel=1e-4)
    assert b["nll"] == pytest.approx(alone["nll"] + unit.log().mean().item(), abs=1e-4)
    assert b["k_step_persistence"]["1"] == pytest.approx(a["k_step_persistence"]["1"])


def test_data_that_the_model_was_trained_on_are_no_fair_test(tmp_path, capsys, undrawn):
    folder = save_model(tmp_path / "run")
    _, text = evaluate(capsys, "--model", folder, "--horizons", "1", "--dataset", DATASET)
    assert "optimistic" in text


def copy_of_the_data(folder):
    """A data set of its own to change; its folder."""
    own = Path(os.environ["MINARI_DATASETS_PATH"]) / DATASET
    shutil.copytree(own, folder)
    return folder


@pytest.mark.situation("right")
def test_episodes_added_since_the_training_do_not_move_the_split(tmp_path, capsys, undrawn):
    data = copy_of_the_data(tmp_path / "data")
    folder = save_model(tmp_path / "run", trained_on=str(data))
    before, text = evaluate(capsys, "--model", folder, "--horizons", "1", "5")
    assert "grown" not in text
    grown = minari.MinariDataset(data / "data")
    other = minari.load_dataset(OTHER)
    buffers = [
        EpisodeBuffer(
            observations=e.observations, actions=e.actions, rewards=e.rewards,
            terminations=e.terminations, truncations=e.truncations,
        ) for e in other.iterate_episodes()
    ]  # fmt: skip
    grown.update_dataset_from_buffer(buffers)
    assert load_dataset(data).transitions.episodes == 12
    after, text = evaluate(capsys, "--model", folder, "--horizons", "1", "5")
    assert after == before
    assert "has grown from 10 to 12 episodes" in text
    whole, text = evaluate(capsys, "--model", folder, "--horizons", "1", "--dataset", data)
    assert whole["transitions"] == 2400
    assert whole["k_step_linear"]["1"] is not None
    assert "optimistic" in text


@pytest.mark.situation("refused")
def test_data_edited_since_the_training_are_refused(tmp_path, capsys, undrawn):
    data = copy_of_the_data(tmp_path / "data")
    folder = save_model(tmp_path / "run", trained_on=str(data))
    with h5py.File(data / "data/main_data.hdf5", "a") as file:
        file["episode_4/rewards"][7] = -3.0
    assert run(["eval-model", "--model", str(folder)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "has changed since" in error
    assert "(other rewards)" in error
    assert "--dataset" in error
    _, text = evaluate(capsys, "--model", folder, "--horizons", "1", "--dataset", OTHER)
    assert "no linear baseline" in text


@pytest.mark.situation("right")
def test_a_copy_of_the_training_data_counts_as_them(tmp_path, capsys, undrawn):
    folder = save_model(tmp_path / "run")
    copy = copy_of_the_data(tmp_path / "copy")
    found, text = evaluate(capsys, "--model", folder, "--horizons", "1", "--dataset", copy)
    assert "optimistic" in text
    assert found["k_step_linear"]["1"] is not None


@pytest.mark.situation("warned")
def test_a_run_that_says_nothing_of_its_data_is_evaluated_with_a_remark(tmp_path, capsys, undrawn):
    folder = save_model(tmp_path / "run")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["fingerprint"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    _, text = evaluate(capsys, "--model", folder, "--horizons", "1")
    assert "does not say what pendulum/random-v0 held" in text
    summary = {"transitions": {"train": 1600, "held_out": 100, "test": 300}}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert run(["eval-model", "--model", str(folder)]) == 2
    assert "splits them differently" in capsys.readouterr().err


def test_a_model_without_its_training_data_has_no_linear_baseline(tmp_path, capsys, undrawn):
    folder = save_model(tmp_path / "run")
    (folder / "config.yaml").unlink()
    found, text = evaluate(capsys, "--model", folder, "--horizons", "1", "--dataset", OTHER)
    assert found["k_step_linear"] is None
    assert "no linear baseline" in text


def test_horizons_that_no_episode_reaches_are_left_out_in_one_sentence(tmp_path, capsys, undrawn):
    folder = save_model(tmp_path / "run")
    found, text = evaluate(capsys, "--model", folder, "--horizons", "3", "1000", "300")
    assert found["k_step"].keys() == {"3"}
    assert [line for line in text.splitlines() if "not evaluated" in line] == [
        line for line in text.splitlines() if "1000, 300 steps ahead" in line
    ]


def test_predictions_that_are_not_finite_are_counted(tmp_path, capsys, undrawn):
    folder = save_model(tmp_path / "run")
    model = DynamicsModel.load(folder)
    with torch.no_grad():
        for p in model.network.parameters():
            p.mul_(1e30)
    model.save(folder)
    found, text = evaluate(capsys, "--model", folder, "--horizons", "1", "5")
    assert found["non_finite"] > 0
    assert f"not finite for {folder}" in text
    assert all(v is None or math.isfinite(v) for v in [found["rmse"], *found["k_step"].values()])


def act(folder, number, returns):
    results = folder / f"eval-{number:03}"
    results.mkdir()
    summary = {"agent": "mpc", "env": "Pendulum-v1", "returns": returns}
    (results / "summary.json").write_text(json.dumps(summary))


def test_models_that_have_acted_show_their_objective_mismatch(tmp_path, capsys, undrawn):
    """Returns that fall with the error, though they come from nowhere: rank correlation -1."""
    folders = [
        save_model(tmp_path / name, rows=rows)
        for name, rows in zip("abc", (None, 1500, 900), strict=True)
    ]
    flags = ("--model", *folders, "--horizons", "1", "10", "--dataset", OTHER)
    found, _ = evaluate(capsys, *flags)
    assert found["mismatch"] is None
    for folder, evaluated in zip(folders, found["models"], strict=True):
        act(folder, 1, [-100 * evaluated["rmse"]] * 2)
    found, text = evaluate(capsys, *flags, "--out", tmp_path / "side-by-side")
    by_metric = {one["metric"]: one for one in found["mismatch"]["correlations"]}
    assert by_metric["rmse"]["spearman"] == pytest.approx(-1)
    assert by_metric["rmse"]["models"] == 3
    assert "k_step 50" not in by_metric
    assert (tmp_path / "side-by-side/mismatch.png").is_file()
    assert "objective mismatch over 3 models" in text


def agent_run(folder, agent):
    """What train-agent leaves: a model, and a config.yaml that says nothing of its rows."""
    save_model(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump({"agent": agent, "seed": 0, "env": "E"}))
    return folder


@pytest.mark.situation("right")
@pytest.mark.parametrize("agent", ["mbpo", "pets"])
def test_the_model_of_an_online_agent_is_evaluated_on_data_that_are_named(
    agent, tmp_path, capsys, undrawn
):
    folder = agent_run(tmp_path / agent, agent)
    assert run(["eval-model", "--model", str(folder)]) == 2
    said = capsys.readouterr().err
    assert f"{folder} is a run of train-agent {agent}" in said
    assert "name the data to evaluate on by --dataset" in said
    assert not (folder / "evaluation.json").exists()
    found, text = evaluate(capsys, "--model", folder, "--dataset", OTHER, "--horizons", "1")
    alone = save_model(tmp_path / "model")
    expected, _ = evaluate(capsys, "--model", alone, "--dataset", OTHER, "--horizons", "1")
    assert found["rmse"] == expected["rmse"]
    assert "no linear baseline" in text


@pytest.mark.situation("right")
def test_the_model_of_an_offline_agent_is_evaluated_as_the_run_that_trained_it(
    tmp_path, capsys, undrawn
):
    folder = agent_run(tmp_path / "mopo", "mopo")
    inner = save_model(folder / "model")
    found, _ = evaluate(capsys, "--model", folder, "--horizons", "1")
    expected, _ = evaluate(capsys, "--model", inner, "--horizons", "1")
    assert (found["rmse"], found["source"]) == (expected["rmse"], expected["source"])
    assert "test episodes" in found["source"]
    _, text = evaluate(capsys, "--model", folder, "--dataset", DATASET, "--horizons", "1")
    assert "its metrics are optimistic" in text


def bad(tmp_path):
    folder = save_model(tmp_path / "run")
    damaged = save_model(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    unknown = save_model(tmp_path / "unknown")
    (unknown / "config.yaml").write_text("- no mapping")
    (tmp_path / "there").mkdir()
    return {
        "nowhere": (["--model", tmp_path / "nowhere"], "holds no model"),
        "damaged": (["--model", folder, damaged], "damaged"),
        "damaged config": (["--model", unknown], "config.yaml is damaged"),
        "twice": (["--model", folder, tmp_path / "there/../run"], "twice"),
        "nobody": (["--model"], "at least one run folder"),
        "horizon 0": (["--model", folder, "--horizons", "0"], "at least 1"),
        "no horizon": (["--model", folder, "--horizons"], "name the steps ahead"),
        "too long": (["--model", folder, "--horizons", "500"], "no held-out episode has 500 steps"),
        "other sizes": (["--model", folder, "--dataset", "reacher/random-v0"], "dimensions"),
        "no such data": (["--model", folder, "--dataset", "no/such-v0"], "no/such-v0"),
        "out alone": (["--model", folder, "--out", tmp_path / "x"], "several models"),
        "out exists": (["--model", folder, damaged, "--out", tmp_path / "there"], "exists"),
    }


def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, capsys, undrawn):
    for name, (flags, words) in bad(tmp_path).items():
        assert run(["eval-model", *map(str, flags)]) == 2, name
        captured = capsys.readouterr()
        assert captured.out == "", name
        assert words in captured.err.splitlines()[-1], name
    assert not (tmp_path / "run/evaluation.json").exists()
    assert not list(tmp_path.glob("comparison-*"))


def test_data_of_another_environment_of_the_same_sizes_are_refused(tmp_path, capsys, undrawn):
    folder = save_model(tmp_path / "run", env_id="Pendulum-v0")
    assert run(["eval-model", "--model", str(folder)]) == 2
    assert "collected in Pendulum-v1" in capsys.readouterr().err


def test_the_tour_of_the_demo_draws_what_eval_model_found(tmp_path, capsys, undrawn):
    found, _ = evaluate(capsys, "--model", save_model(tmp_path / "run"), "--horizons", "1", "10")
    returns = {"mean_return": 1.0, "returns": [0.5, 1.5], "lengths": [9, 10]}
    visited = {
        "behaviour": returns | {"policy": "random"},
        "models": {"nll": {"model": found, "mpc": returns}},
    }
    figure = figures.tour({"Pendulum-v1": visited, "Pendulum-v2": visited})
    growth = figure.axes[0].lines[0]
    assert list(growth.get_xdata()) == [1, 10]
    assert list(growth.get_ydata()) == list(found["k_step"].values())
    figures.save(figure, tmp_path / "tour.png")
