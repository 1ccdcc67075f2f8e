"""What eval-agent wrote, with the run whose model or policy acts."""

import json
import shutil

import pytest

from mbrl_bilevel.scripts.evaluation_reading import (
    evaluations_in,
    is_evaluation,
    read_evaluation,
    without_copies,
)
from tests.scripts.run_folders import agent_run, evaluation, model_run


def test_a_planner_is_called_by_the_objective_of_its_model(tmp_path):
    model = model_run(tmp_path / "m", 3, 0.1, objective="mse", hidden=[8, 8])
    folder = evaluation(model / "eval-001", model, [1.0, 5.0])
    assert is_evaluation(folder)
    assert evaluations_in(model) == [folder]
    (run,) = read_evaluation(folder)
    assert (run.kind, run.name, run.seed, run.state) == ("evaluations", "mse", 3, "finished")
    acting = run.acting
    assert (acting.objective, acting.run, acting.seed) == ("mse", model, 1000)
    assert (acting.returns, acting.mean) == ({0: 1.0, 1: 5.0}, 3.0)
    assert acting.data == "hopper/medium-v0 (aaaabbbb)"
    settings = acting.settings
    assert (settings["samples"], settings["model hidden"]) == (64, [8, 8])
    assert (settings["max_episode_steps"], settings["episodes"]) == (1000, 2)
    assert not settings.keys() & {"out", "workers", "model objective", "objective", "seed"}


def test_a_policy_has_the_name_of_its_agent_and_of_the_objective_of_its_model(tmp_path):
    model = model_run(tmp_path / "m", 3, 0.1, objective="bilevel")
    # An agent that was given a model has the objective of fits that it never makes.
    mopo = agent_run(
        tmp_path / "p", 3, {1: 1.0}, agent="mopo", model=str(model), objective="nll", dataset="d"
    )
    played = {"agent": "policy", "planner": None, "settings": {}}
    (run,) = read_evaluation(evaluation(mopo / "eval-001", mopo, [2.0], **played))
    assert (run.name, run.acting.agent, run.acting.objective) == (
        *("mopo, bilevel", "mopo", "bilevel"),
    )
    assert run.acting.data == "d"
    sac = agent_run(tmp_path / "sac", 1, {1: 1.0})
    (run,) = read_evaluation(evaluation(sac / "eval-001", sac, [2.0], **played))
    assert (run.name, run.acting.objective, run.acting.data) == ("sac", None, None)


def test_the_simulator_and_shipped_policies_have_the_seed_of_their_episodes(tmp_path):
    (run,) = read_evaluation(evaluation(tmp_path / "eval-001", "simulator", [2.0], seed=7))
    assert (run.name, run.seed, run.acting.objective) == ("simulator", 7, None)
    shipped = {"agent": "policy", "policy": "medium", "planner": None, "settings": {}}
    (run,) = read_evaluation(evaluation(tmp_path / "eval-002", None, [2.0], **shipped))
    assert (run.name, run.acting.run) == ("policy medium", None)


def test_several_agents_of_one_folder_are_one_each(tmp_path):
    models = [model_run(tmp_path / n, 0, 0.1, objective=n) for n in ("mse", "nll")]
    parts = [evaluation(tmp_path / f"x/{m.name}", m, [1.0]) for m in models]
    found = [json.loads((part / "summary.json").read_text()) for part in parts]
    folder = evaluation(tmp_path / "eval-001", models[0], [1.0])
    (folder / "summary.json").write_text(json.dumps({"agents": found, "complete": False}))
    assert [(r.name, r.state) for r in read_evaluation(folder)] == [
        *(("mse", "interrupted"), ("nll", "interrupted")),
    ]


def test_a_model_is_found_where_all_was_moved_together(tmp_path):
    model = model_run(tmp_path / "a/trials/m", 3, 0.1)
    evaluation(tmp_path / "a/trials/m,eval-agent/eval-001", model, [1.0])
    evaluation(model / "eval-001", model, [1.0])
    shutil.move(tmp_path / "a", tmp_path / "b")
    for name in ("m,eval-agent", "m"):
        (run,) = read_evaluation(tmp_path / "b/trials" / name / "eval-001")
        assert run.acting.run == tmp_path / "b/trials/m"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"returns": ["a"]}, "summary.json is damaged (ValueError: its returns are no numbers)"),
        ({"returns": [1.0, 2.0]}, "summary.json is damaged (ValueError: zip"),
        ({"settings": None}, "summary.json is damaged (TypeError"),
        ({"model": "/gone"}, "the run of its model, /gone, is not there or cannot be read"),
    ],
)
def test_what_cannot_be_read_is_remarked(tmp_path, change, sentence):
    model = model_run(tmp_path / "m", 0, 0.1)
    folder = evaluation(tmp_path / "eval-001", model, [1.0])
    found = json.loads((folder / "summary.json").read_text()) | change
    (folder / "summary.json").write_text(json.dumps(found))
    (run,) = read_evaluation(folder)
    assert run.state == "damaged"
    assert run.remarks[0].startswith(sentence)


def test_an_evaluation_that_wrote_nothing_yet_has_no_results(tmp_path):
    folder = evaluation(tmp_path / "eval-001", None, [1.0])
    (folder / "summary.json").unlink()
    (run,) = read_evaluation(folder)
    assert (run.state, run.kind, run.acting.returns) == ("without results", "evaluations", {})


def test_the_same_returns_count_once_and_a_whole_evaluation_replaces_one_cut_short(tmp_path):
    model = model_run(tmp_path / "m", 0, 0.1)
    made = [
        evaluation(tmp_path / "a/eval-001", model, [1.0, 2.0], complete=False),
        evaluation(tmp_path / "a/eval-002", model, [1.0, 2.5]),
        evaluation(tmp_path / "b/eval-001", model, [1.0, 2.5]),  # a copy
        evaluation(tmp_path / "c/eval-001", model, [1.0, 9.0]),  # the same settings, yet another
        evaluation(tmp_path / "d/eval-001", model, [1.0, 2.5], seed=5),
    ]
    runs = [run for folder in made for run in read_evaluation(folder)]
    assert without_copies(runs) == [runs[1], runs[3], runs[4]]
