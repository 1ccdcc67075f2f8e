"""From stages to trials: names, command lines, what follows what."""

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.sweeps.switches import CLASSES, switches
from mbrl_bilevel.scripts.sweeps.trial import COMMANDS, LONGEST_NAME, trials_of

MODEL = {"command": "train-model", "dataset": "a/b-v0"}


def test_a_trial_is_named_for_its_axes():
    found = trials_of([MODEL | {"dataset": ["a/b-v0", "/c/d"], "seed": ["0", "1"]}], 7)
    assert [trial.name for trial in found] == [
        "dataset=a-b-v0,seed=0",
        "dataset=a-b-v0,seed=1",
        "dataset=c-d,seed=0",
        "dataset=c-d,seed=1",
    ]
    (alone,) = trials_of([MODEL], 7)
    assert alone.name == "train-model"
    assert alone.words == ["train-model", "--seed", "7", "--dataset", "a/b-v0"]


def test_a_value_of_several_words_and_switches_are_as_on_the_command_line():
    flags = {"hidden": "8 8", "cache": "false", "download": "true", "unchecked_task": "false"}
    (trial,) = trials_of([MODEL | flags], 0)
    words = trial.words[trial.words.index("--hidden") :]
    assert words == ["--hidden", "8", "8", "--no-cache", "--download"]


def test_each_stage_below_then_follows_each_run():
    stages = {"then": [{"command": "eval-model"}, {"command": "eval-agent", "prior": "medium"}]}
    found = trials_of([MODEL | {"objective": ["mse", "nll"]} | stages], 0)
    assert [(trial.name, trial.follows) for trial in found] == [
        ("objective=mse", None),
        ("objective=mse,eval-model", "objective=mse"),
        ("objective=mse,eval-agent", "objective=mse"),
        ("objective=nll", None),
        ("objective=nll,eval-model", "objective=nll"),
        ("objective=nll,eval-agent", "objective=nll"),
    ]
    assert found[2].words == ["eval-agent", "--prior", "medium"]
    assert found[2].columns["objective"] == "mse"
    assert found[2].columns["eval-agent.prior"] == "medium"


def test_a_training_that_follows_takes_over_data_and_seed():
    agent = {"command": "train-agent", "agent": "mopo", "then": {"command": "eval-agent"}}
    found = trials_of([MODEL | {"seed": ["3"], "then": agent}], 0)
    assert found[1].name == "seed=3,train-agent"
    assert found[1].flags == {"dataset": "a/b-v0", "seed": "3", "agent": "mopo"}
    assert found[2].follows == found[1].name
    (_, other) = trials_of([MODEL | {"then": {"command": "train-agent", "seed": "9"}}], 0)
    assert other.flags["seed"] == "9"


def test_several_stages_are_told_apart_by_their_commands():
    names = [trial.name for trial in trials_of([MODEL, MODEL | {"seed": ["1"]}], 0)]
    assert names == ["train-model", "train-model-2,seed=1"]


def test_long_names_are_cut_and_stay_different():
    values = [f"{'x' * 300}{i}" for i in range(3)]
    names = {trial.name for trial in trials_of([MODEL | {"objective": values}], 0)}
    assert len(names) == 3
    assert max(map(len, names)) < LONGEST_NAME + 10


def test_names_of_folders_leave_none():
    (trial,) = trials_of([MODEL | {"env": ["../../x:Y v0"]}], 0)
    assert trial.name == "env=x-Y-v0"


@pytest.mark.parametrize("key", ["out", "device", "threads", "json", "resume", "help"])
def test_keys_that_the_sweep_decides_are_refused(key):
    with pytest.raises(InputError, match=f"{key} is no key of a sweep, .* decides it"):
        trials_of([MODEL | {key: "1"}], 0)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([{"dataset": "a"}], "no command is given: choose one of train-model"),
        ([{"command": "bench"}], "command: bench: choose one of"),
        ([{"command": ["eval-model"]}], "command: .*choose one of"),
        ([MODEL | {"then": "eval-model"}], "then: 'eval-model' is no stage"),
        ([MODEL | {"then": MODEL}], "train-model learns from no run"),
        (
            [{"command": "eval-agent", "then": {"command": "eval-model"}}],
            "eval-model follows eval-agent, which leaves no run",
        ),
        (
            [MODEL | {"then": {"command": "eval-model", "model": "runs/a"}}],
            "model runs/a: .*the run that it follows",
        ),
        ([MODEL | {"seed": ["0", "0"]}], "2 trials are seed=0"),
    ],
)
def test_stages_that_are_none_are_refused(stages, words):
    with pytest.raises(InputError, match=words):
        trials_of(stages, 0)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"cache": "maybe"}, "cache maybe: choose true or false"),
        ({"hidden": "8 '8"}, "quotes come in pairs"),
        ({"steps": "3 --out elsewhere"}, "a value holds no flag"),
    ],
)
def test_values_that_are_no_words_are_refused(flags, words):
    (trial,) = trials_of([MODEL | flags], 0)
    with pytest.raises(InputError, match=words):
        _ = trial.words


def test_switches_of_every_command_are_known():
    assert set(CLASSES) == set(COMMANDS)
    assert switches("train-model")["cache"] is True
    assert switches("train-agent")["download"] is False
    assert "steps" not in switches("train-model")
    assert switches("eval-agent")["video"] is False
    assert switches("eval-model")["recalibrate"] is False
