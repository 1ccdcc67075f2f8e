"""Flags of train-agent that are refused: one sentence, exit code 2, no folder."""

import re
from typing import get_type_hints

import pytest

from mbrl_bilevel.agents.settings import AGENTS
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.scripts import train_agent
from mbrl_bilevel.scripts.flags import train_agent as flags
from tests.scripts.test_train_agent import (  # noqa: F401 (two of them are fixtures)
    DATASET,
    ENV,
    MOPO,
    datasets,
    torch_as_before,
    train,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, obs_dim, env_id in (("hopper", 11, "Hopper-v5"), ("wide", 3, None)):
        DynamicsModel(obs_dim, 1, ModelSettings(members=1, hidden=(4,)), env_id=env_id).save(
            folder / name
        )
    DynamicsModel(2, 1, ModelSettings(members=1, hidden=(4,)), env_id="Point-v0").save(
        folder / "alone"
    )
    return folder


SAC, MBPO = ("--agent", "sac", "--env", ENV), ("--agent", "mbpo", "--env", ENV)
PETS = ("--agent", "pets", "--env", ENV)
BAD = {
    "unknown environment": (("--agent", "sac", "--env", "Hoper-v5"), "did you mean 'Hopper-v5'"),
    "discrete actions": (("--agent", "sac", "--env", "CartPole-v1"), "CartPole-v1' has actions"),
    "no environment": (("--agent", "sac"), "name the environment by --env"),
    "no data set": (("--agent", "mopo", "--env", ENV), "name one by --dataset"),
    "unknown data set": (("--agent", "mopo", "--dataset", "no/such-v0"), "no/such-v0"),
    "data online": ((*SAC, "--dataset", DATASET), "leave --dataset out"),
    "a model online": ((*PETS, "--model", "somewhere"), "leave --model out"),
    "a folder of a model online": ((*MBPO, "--model", "somewhere"), "somewhere"),
    "physics without gradients": (
        ("--agent", "dhmbpo", "--env", ENV, "--model", "simulator"),
        "learns by gradients through a model of its own",
    ),
    "physics that nobody simulates": (
        (*MBPO, "--model", "simulator"),
        "the simulator cannot look ahead in Point-v0",
    ),
    "an uncertain simulator": (
        (*MBPO, "--model", "simulator", "--penalty", "aleatoric"),
        "--penalty aleatoric with --model simulator",
    ),
    "data of another environment": (
        ("--agent", "mopo", "--dataset", DATASET, "--env", "Hopper-v5"),
        "was collected in Point-v0, not in Hopper-v5",
    ),
    "a model of cloning": (
        ("--agent", "bc", "--dataset", DATASET, "--model", "somewhere"),
        "--model somewhere is no setting of bc",
    ),
    "no model there": ((*MOPO, "--model", "nowhere"), "nowhere holds no model"),
    "a model of another environment": (
        (*MOPO, "--model", "MODELS/hopper"),
        "was trained for Hopper-v5, not for Point-v0",
    ),
    "a model of other sizes": (
        (*MOPO, "--model", "MODELS/wide"),
        "has 3 observation and 1 action dimensions, Point-v0 has 2 and 1",
    ),
    "disagreement of one": (
        (*MOPO, "--model", "MODELS/alone", "--penalty", "disagreement"),
        "disagreement of one member",
    ),
    "disagreement of one elite": (
        (*MOPO, "--elites", "1", "--penalty", "disagreement"),
        "disagreement of one member",
    ),
    "too many elites": ((*MBPO, "--elites", "3"), "--elites 3: choose from 1 to"),
    "a setting it has not": ((*SAC, "--rollouts", "10"), "--rollouts 10 is no setting of sac"),
    "a weight of nothing": ((*MBPO, "--penalty-weight", "2"), "--penalty-weight 2.0 of no penalty"),
    "no steps": ((*SAC, "--steps", "0"), "--steps 0: choose at least 1"),
    "an endless cost": ((*SAC, "--termination-cost", "inf"), "--termination-cost inf"),
    "no reward": ((*SAC, "--reward-scale", "0"), "--reward-scale 0.0: choose at least 1e-09"),
    "no average": (
        (*SAC, "--averaging-rate", "0"),
        "--averaging-rate 0.0: choose a number above 0",
    ),
    "all too recent": ((*MBPO, "--recent-starts", "1.5"), "--recent-starts 1.5: choose at most 1"),
    "random steps alone": ((*SAC, "--steps", "50"), "--start-steps 5000 of --steps 50"),
    "a ratio above 1": ((*MBPO, "--real-ratio", "1.5"), "--real-ratio 1.5"),
    "no weight": ((*MOPO, "--penalty-weight", "nan"), "--penalty-weight nan"),
    "lengths that fall": (
        (*MBPO, "--rollout-length", "5", "1", "0", "9"),
        "--rollout-length 5 1 0 9: rollout lengths from",
    ),
    "more entropy than there is": (
        (*SAC, "--target-entropy", "0.7"),
        "--target-entropy 0.7: 1 actions in [-1, 1] have less than 0.693 nats",
    ),
    "one row": (
        (*MBPO, "--start-steps", "1"),
        "--start-steps 1: too few to fit the model and hold data out; choose at least 3",
    ),
    "too few for folds": (
        (*MBPO, "--start-steps", "3", "--objective", "two_means", "--members", "3"),
        "--start-steps 3: too few to fit the model and leave a fold out for each of 3 --members; "
        "choose at least 4, or --outer-data held_out",
    ),
    "too few for folds of pets": (
        (*PETS, "--start-steps", "2", "--objective", "two_means"),
        "--start-steps 2: too few to fit the model and leave a fold out",
    ),
    "folds of one": (
        (*MBPO, "--objective", "two_means", "--members", "1"),
        "--members 1: --objective two_means leaves other data out",
    ),
    "no steps of an episode": ((*SAC, "--max-steps", "0"), "--max-steps 0: choose at least 1"),
    "no logs": ((*SAC, "--log-every", "0"), "--log-every 0: choose at least 1"),
    "no episodes": ((*SAC, "--episodes", "0"), "--episodes 0: choose at least 1"),
    "a negative seed": ((*SAC, "--seed", "-1"), "--seed -1"),
    "no discount": ((*SAC, "--discount", "1"), "--discount 1.0: choose at most"),
    "no policy": ((*SAC, "--policy-hidden", "0"), "--policy-hidden 0: choose at least 1"),
    "no rate": (
        (*SAC, "--policy-learning-rate", "0"),
        "--policy-learning-rate 0.0: choose a number above 0",
    ),
    "flags of objectives": (
        (*MBPO, "--objective", "bilevel", "--reward", "neural"),
        "add --outer-objective one_step",
    ),
    "resume of nothing": ((*SAC, "--resume"), "no run to continue"),
}


@pytest.mark.situation("refused")
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_exit_code_2_and_no_folder(models, tmp_path, capsys, name):
    flags, words = BAD[name]
    out = tmp_path / "run"
    assert train(out, *(flag.replace("MODELS", str(models)) for flag in flags)) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "train-agent: " in line]
    assert error.startswith("mbrl-bilevel train-agent: ")
    assert words in error
    assert not out.exists()


HUGE = "99999999999999999999"
COUNTS = (
    *("max-steps", "steps", "start-steps", "updates-per-step", "refit-every", "imagine-every"),
    *("model-steps", "rollouts", "members", "elites", "hidden", "policy-hidden", "log-every"),
    *("evaluate-every", "episodes", "threads", "outer-folds"),
)
POSITIVE = ("temperature", "actor-learning-rate", "averaging-rate", "reward-scale")
POSITIVE = (*POSITIVE, "policy-learning-rate", "outer-learning-rate")
WEIGHTS = ("termination-cost", "value-weight", "penalty-weight", "recent-starts", "real-ratio")
NUMBERS = (
    *((flag, value) for flag in COUNTS for value in ("0", "-1", HUGE)),
    *((flag, value) for flag in POSITIVE for value in ("0", "-1", "nan", "inf")),
    *((flag, value) for flag in (*WEIGHTS, "discount") for value in ("-1", "nan", "inf", "1e9")),
    *(("target-entropy", value) for value in ("nan", "inf", "-inf", "1e9")),
    *(("checkpoint-seconds", value) for value in ("-1", "nan")),
    *((flag, value) for flag in ("imitate-steps", "seed") for value in ("-1", HUGE)),
    *(("rollout-length", f"{value} 1 0 1") for value in ("-1", HUGE)),
)


@pytest.mark.situation("refused")
@pytest.mark.parametrize(("flag", "value"), NUMBERS)
def test_no_number_is_out_of_range(flag, value, tmp_path, capsys, monkeypatch):
    """Before the environment is made, let alone stepped."""
    monkeypatch.setattr(train_agent, "check_agent", lambda *_: pytest.fail("made an environment"))
    agent = MOPO if flag in ("value-weight", "imitate-steps") else MBPO
    objective = ("--objective", "two_means") if flag.startswith("outer-") else ()
    assert train(tmp_path / "run", *agent, *objective, f"--{flag}", *value.split()) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"mbrl-bilevel train-agent: --{flag} ")
    assert ": choose " in error
    assert not (tmp_path / "run").exists()


def test_every_number_has_a_range():
    bare = {int, float, int | None, float | None, tuple[int, ...]}
    groups = (flags.RunFlags, flags.EnvironmentFlags, flags.EvaluationFlags)
    every = [get_type_hints(group, include_extras=True) for group in groups]
    hints = {name: hint for group in every for name, hint in group.items()}
    assert not [name for name, hint in hints.items() if hint in bare]


@pytest.mark.parametrize("agent", AGENTS.names)
def test_help_of_an_agent_can_be_read_at_once(agent, capsys):
    with pytest.raises(SystemExit):
        flags.parse(["--agent", agent, "--help"])
    shown = set(re.findall(r"^[^\w-]*(?:-h, )?(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    assert {"--seed", "--out", "--steps"} <= shown
    assert len(shown) < 35
