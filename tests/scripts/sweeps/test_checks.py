"""Every command line is parsed before anything runs; refusals name the trial."""

import re
from collections import Counter
from pathlib import Path

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.sweeps import checks
from mbrl_bilevel.scripts.sweeps.checks import checked_steps
from mbrl_bilevel.scripts.sweeps.sweep_file import read_stages
from mbrl_bilevel.scripts.sweeps.trial import trials_of

STUDY = sorted((Path(__file__).parents[3] / "scripts/study").glob("*.yaml"))
MODEL = {"command": "train-model", "dataset": "my/data-v0"}


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """A folder that looks like a data set: command lines are parsed, data are not read."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    folder = tmp_path / "my" / "data-v0" / "data"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text("{}")


def steps(*stages):
    return checked_steps(trials_of(stages, 0))


def test_steps_are_those_of_trainings():
    agent = {"command": "train-agent", "agent": "sac", "env": "Hopper-v5", "steps": "9000"}
    follows = {"then": {"command": "eval-model"}}
    assert steps(MODEL | {"steps": ["30", "40"]} | follows, agent) == {
        "train-model,steps=30": 30,
        "train-model,steps=30,eval-model": None,
        "train-model,steps=40": 40,
        "train-model,steps=40,eval-model": None,
        "train-agent": 9000,
    }


def test_trials_that_differ_by_seed_are_parsed_once_and_every_seed_too(monkeypatch):
    parsed, real = [], checks.parsed
    monkeypatch.setattr(checks, "parsed", lambda *given: parsed.append(given) or real(*given))
    steps(MODEL | {"objective": ["mse", "nll"], "seed": ["0", "1", "2"]})
    assert len(parsed) == 4  # each objective with the first seed, and two more seeds
    with pytest.raises(InputError, match="seed=-1: --seed -1: choose at least 0"):
        steps(MODEL | {"objective": ["mse", "nll"], "seed": ["0", "-1"]})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stepz": "3"}, "trial train-model: --stepz is no flag of train-model: did you mean"),
        ({"steps": "0"}, "trial train-model: --steps 0: choose at least 1"),
        ({"steps": "many"}, "Error parsing --steps: .* `mbrl-bilevel train-model --help` lists"),
        ({"objective": "best"}, "no objective 'best': choose one of"),
        (
            {"objective": ["nll", "mse"], "outer_learning_rate": "0.1"},
            "trial objective=nll: --outer-learning-rate 0.1 is no setting of objective nll",
        ),
        ({"dataset": "no/thing-v0"}, "trial train-model: no data set 'no/thing-v0'"),
        ({"then": {"command": "eval-agent", "planner": "cem icem"}}, "write a list, planner: .cem"),
        ({"then": {"command": "eval-model", "dataset": "no/one-v0"}}, "eval-model: no data set"),
        (
            {"then": {"command": "train-agent", "agent": "dhmbpo"}},
            "--agent dhmbpo learns online: leave --dataset out",
        ),
    ],
)
def test_what_a_command_refuses_is_refused_with_the_name_of_the_trial(changes, words):
    with pytest.raises(InputError, match=words) as caught:
        steps(MODEL | changes)
    assert "\n" not in str(caught.value)


def test_a_required_flag_is_missed_in_one_sentence():
    with pytest.raises(InputError, match=r"Missing from .* --dataset STR") as caught:
        steps({"command": "train-model"})
    assert "│" not in str(caught.value)
    with pytest.raises(InputError, match="name the agent by --agent"):
        steps({"command": "train-agent"})


def test_an_evaluation_of_several_models_is_refused():
    with pytest.raises(InputError, match=r"model a b are 2 of one trial: write a list, model: \[a"):
        steps({"command": "eval-model", "model": "a b"})


@pytest.mark.parametrize("file", STUDY, ids=lambda path: path.stem)
def test_the_files_of_the_study_pass_with_common_starts_and_data_of_each_seed(file, tmp_path):
    trials = trials_of(read_stages(file, ()), 0)
    for trial in trials:
        dataset = trial.flags.get("dataset")
        if dataset is not None:
            made = tmp_path / dataset / "data"
            made.mkdir(parents=True, exist_ok=True)
            (made / "metadata.json").write_text("{}")
            numbers = re.findall(r"random-(\d+)-", dataset)
            assert numbers in ([], [trial.flags["seed"]])
    checked_steps(
        [one for one in trials if one.columns["seed"] in (trials[0].columns["seed"], "9")]
    )
    evaluations = [one for one in trials if one.command == "eval-agent"]
    assert {one.flags["seed"] for one in evaluations} == {"1000"}
    objectives = Counter(one.columns["objective"] for one in evaluations)
    assert objectives.keys() == {"mse", "nll", "beta_nll", "faithful", "bilevel"}
    assert len(set(objectives.values())) == 1
