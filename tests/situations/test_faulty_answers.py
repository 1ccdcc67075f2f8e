"""What a user is told of an environment that answers wrongly, by every command that steps it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.scripts import main
from tests.situations.faulty_commands import (
    AGENTS,
    ENV,
    Answer,
    collect,
    said,
    train,
)

pytestmark = [
    pytest.mark.usefixtures("faulty"),
    # of plans for states that few steps before have come near
    pytest.mark.filterwarnings("ignore:1 of 1 starts lie outside"),
]


def observed(count: int, value: float, at: int = 30) -> Answer:
    """Step `at`, counted from the first of the first episode, has `value` in its observation."""
    calls = [0]

    def function(_: int, step: tuple[Any, ...]) -> tuple[Any, ...]:
        calls[0] += 1
        if calls[0] == at:
            step[0][count] = value
        return step

    return function


def rewarded(value: Any, at: int = 30) -> Answer:
    calls = [0]

    def function(_: int, step: tuple[Any, ...]) -> tuple[Any, ...]:
        calls[0] += 1
        return (step[0], value, *step[2:]) if calls[0] == at else step

    return function


@pytest.mark.situation("right")
def test_collect_stores_what_was_stepped_though_the_environment_writes_into_it_again() -> None:
    assert collect() == 0
    data = load_dataset("own/faulty-v0").transitions
    assert len(data) == 50
    velocity = data.observation[:, 1] + 0.1 * data.action[:, 0]
    position = data.observation[:, 0] + 0.1 * velocity
    torch.testing.assert_close(data.next_observation, torch.stack([position, velocity], -1))
    assert (data.next_observation - data.observation).abs().sum(-1).min() > 0
    torch.testing.assert_close(data.reward, -position.square())


@pytest.mark.situation("right")
def test_collect_takes_rewards_in_arrays(answer: Callable[[Answer], None]) -> None:
    answer(lambda _, step: (step[0], np.array([step[1]]), *step[2:]))
    assert collect() == 0
    data = load_dataset("own/faulty-v0").transitions
    torch.testing.assert_close(data.reward, -data.next_observation[:, 0].square())


@pytest.mark.situation("right")
@pytest.mark.parametrize("agent", AGENTS)
def test_agents_learn_from_rewards_in_arrays(
    answer: Callable[[Answer], None], tmp_path: Path, agent: str
) -> None:
    """As from the same rewards as numbers."""
    found = []
    for name, function in (
        ("numbers", lambda _, step: step),
        ("arrays", lambda _, step: (step[0], np.array([step[1]]), *step[2:])),
    ):
        answer(function)
        assert train(tmp_path / name, agent, "--start-steps", "40", "--steps", "45") == 0
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        returns = [json.loads(line).get("real/return") for line in lines]
        found.append([value for value in returns if value is not None])
    assert found[0] == found[1]
    assert len(found[0]) >= 2
    assert all(map(math.isfinite, found[0]))


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (observed(1, math.nan), "an observation that is not finite (nan in dimension 1)"),
        (observed(0, -math.inf), "an observation that is not finite (-inf in dimension 0)"),
        (rewarded(math.nan), "nan as reward"),
        (rewarded(np.zeros(2)), "array([0., 0.]) as reward, where one number is needed"),
    ],
)
def test_collect_names_what_the_environment_returned_and_writes_nothing(
    answer: Callable[[Answer], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    function: Answer,
    words: str,
) -> None:
    answer(function)
    assert collect() == 2
    sentence = said(capsys)
    assert f"the environment Faulty-v0 returned {words}" in sentence
    assert "at step 10 of episode 1" in sentence
    assert not list((tmp_path / "datasets").rglob("*.hdf5"))


@pytest.mark.situation("refused")
@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("at", [30, 47], ids=["start steps", "later"])
@pytest.mark.parametrize("what", ["observation", "reward"])
def test_train_agent_names_what_the_environment_returned(
    answer: Callable[[Answer], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    agent: str,
    at: int,
    what: str,
) -> None:
    answer(observed(1, math.nan, at) if what == "observation" else rewarded(math.inf, at))
    assert train(tmp_path / "run", agent, "--start-steps", "40", "--steps", "60") == 2
    sentence = said(capsys)
    words = "an observation that is not finite" if what == "observation" else "inf as reward"
    assert f"the environment Faulty-v0 returned {words}" in sentence
    assert f"at step {(at - 1) % 20 + 1} of episode {(at - 1) // 20}" in sentence


@pytest.mark.situation("refused")
def test_train_agent_names_it_in_an_evaluation(
    answer: Callable[[Answer], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(rewarded(math.nan, 50))
    flags = ("--start-steps", "20", "--steps", "60", "--evaluate-every", "45")
    assert train(tmp_path / "run", "sac", *flags) == 2
    assert "nan as reward, at step 5 of evaluation episode 0" in said(capsys)


@pytest.mark.situation("refused")
@pytest.mark.parametrize(("what", "words"), [("nan", "nan as reward"), ("array", "0.])")])
def test_eval_agent_names_what_the_environment_returned(
    answer: Callable[[Answer], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    what: str,
    words: str,
) -> None:
    answer(rewarded(math.nan if what == "nan" else np.zeros(2), 25))
    flags = ("--agent", "policy", "--policy", "random", "--env", ENV, "--episodes", "2")
    assert main.run(["eval-agent", *flags, "--out", str(tmp_path)]) == 2
    sentence = said(capsys)
    assert words in sentence
    assert "at step 5 of episode 1" in sentence


@pytest.mark.situation("refused")
@pytest.mark.parametrize("there", [False, True])
def test_eval_agent_leaves_nothing_where_no_episode_came_to_its_end(
    answer: Callable[[Answer], None], tmp_path: Path, there: bool
) -> None:
    answer(rewarded(math.nan, 5))
    out = tmp_path / "deeper" / "out"
    if there:
        out.mkdir(parents=True)
    flags = ("--agent", "policy", "--policy", "random", "--env", ENV, "--episodes", "2")
    assert main.run(["eval-agent", *flags, "--out", str(out)]) == 2
    assert sorted(p.name for p in tmp_path.rglob("*")) == (["deeper", "out"] if there else [])


@pytest.mark.situation("right")
def test_eval_agent_takes_rewards_in_arrays(
    answer: Callable[[Answer], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(lambda _, step: (step[0], np.array([0.25]), np.bool_(False), 0))
    flags = ("--agent", "policy", "--policy", "random", "--env", ENV, "--episodes", "2")
    assert main.run(["eval-agent", *flags, "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["returns"] == [5.0, 5.0]


@pytest.mark.situation("refused")
@pytest.mark.parametrize("agent", ["mbpo", "pets"])
def test_another_termination_is_not_blamed_on_the_reward(
    answer: Callable[[Answer], None], tmp_path: Path, capsys: pytest.CaptureFixture[str], agent: str
) -> None:
    answer(lambda count, step: (*step[:2], count == 10, False))
    assert train(tmp_path / "run", agent, "--start-steps", "40", "--steps", "60") == 2
    sentence = said(capsys)
    assert "4 terminations where the task Faulty-v0 does not end" in sentence
    assert "--unchecked-task" in sentence
    assert "--learn-reward" not in sentence
