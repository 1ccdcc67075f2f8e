"""Unusual environments: handled, or refused before the first step."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.envs.tasks import TASKS, Task
from mbrl_bilevel.scripts import main
from tests.situations.faulty_commands import (
    AGENTS,
    ENV,
    HERE,
    TASK,
    Answer,
    collect,
    said,
    train,
)
from tests.situations.faulty_environment import Faulty

pytestmark = [
    pytest.mark.usefixtures("faulty"),
    # of plans for states that few steps before have come near
    pytest.mark.filterwarnings("ignore:1 of 1 starts lie outside"),
]
OWN: dict[str, Task] = {
    "booleans": Task(
        "Faulty-v0",
        lambda obs, act, next_obs: next_obs[..., 0].abs() < 0.1,
        lambda next_obs: next_obs[..., 0:1].abs() > 5,
        ("x", "vel_x"),
    ),
    "columns": Task(
        "Faulty-v0",
        lambda obs, act, next_obs: -next_obs[..., 0:1].abs(),
        lambda next_obs: (next_obs[..., 0] > 5).double(),
        ("x", "vel_x"),
    ),
    "numbers": Task("Faulty-v0", lambda *_: 1.0, lambda next_obs: False, ("x", "vel_x")),
}


@pytest.mark.situation("refused")
def test_collect_refuses_an_environment_registered_by_its_class_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "step", lambda *_: pytest.fail("a step was taken"))
    assert collect(env=f"{HERE}:ByClass-v0") == 2
    assert f"register it by name, entry_point='{HERE}:Faulty'" in said(capsys)
    assert not list((tmp_path / "datasets").rglob("*.hdf5"))


@pytest.mark.situation("refused")
def test_collect_refuses_arguments_that_no_data_set_holds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "step", lambda *_: pytest.fail("a step was taken"))
    monkeypatch.setattr(Faulty, "__init__", lambda self, goal=None: None)
    gymnasium.register(
        "Goal-v0", entry_point=f"{HERE}:Faulty", max_episode_steps=20, kwargs={"goal": np.ones(2)}
    )
    try:
        assert collect(env="Goal-v0") == 2
    finally:
        gymnasium.registry.pop("Goal-v0")
    assert "'Goal-v0' cannot be written to a data set" in said(capsys)


@pytest.mark.situation("refused")
@pytest.mark.parametrize("agent", [*AGENTS, "mopo"])
def test_train_agent_refuses_episodes_that_may_never_end_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, agent: str
) -> None:
    flags: tuple[str, ...] = ("--steps", "6000")
    if agent == "mopo":
        assert collect(env=f"{HERE}:Endless-v0") == 0
        flags = (*flags, "--dataset", "own/faulty-v0")
    monkeypatch.setattr(Faulty, "step", lambda *_: pytest.fail("a step was taken"))
    monkeypatch.setitem(TASKS, "Endless-v0", replace(TASK, env_id="Endless-v0"))
    assert train(tmp_path / "run", agent, *flags, env=f"{HERE}:Endless-v0") == 2
    assert "episodes of Endless-v0 have no time limit: give one by --max-steps" in said(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.situation("right")
def test_train_agent_ends_endless_episodes_after_max_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: Callable[[Answer], None]
) -> None:
    """Real ones and those of the evaluation, whose rewards of 1 add up to their length."""
    answer(lambda _, step: (step[0], 1.0, *step[2:]))
    flags = ("--start-steps", "20", "--steps", "40", "--max-steps", "7", "--json")
    assert train(tmp_path / "run", "sac", *flags, env=f"{HERE}:Endless-v0") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["mean_return"] == 7
    assert "--max-steps 7" in captured.err
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert {line["real/length"] for line in lines if "real/length" in line} == {7}


@pytest.mark.situation("refused")
def test_eval_agent_refuses_episodes_that_may_never_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "step", lambda *_: pytest.fail("a step was taken"))
    flags = ("--agent", "policy", "--policy", "random", "--env", f"{HERE}:Endless-v0")
    assert main.run(["eval-agent", *flags, "--out", str(tmp_path / "out")]) == 2
    assert "episodes of Endless-v0 have no time limit: give one by --max-steps" in said(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.situation("right")
def test_collect_cuts_an_endless_episode(tmp_path: Path) -> None:
    assert collect(env=f"{HERE}:Endless-v0") == 0
    data = load_dataset("own/faulty-v0").transitions
    assert (len(data), data.episodes) == (50, 1)
    assert data.truncated.tolist() == [False] * 49 + [True]


@pytest.mark.situation("warned")
def test_mbpo_goes_on_where_observations_leave_their_declared_bounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    high = np.array([9.0, 1e-3])
    monkeypatch.setattr(Faulty, "observation_space", Box(-high, high))
    assert train(tmp_path / "run", "mbpo", "--start-steps", "40", "--steps", "60") == 0
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if "lie outside the observation space" in line]
    assert "warning: observations lie outside the observation space of Faulty-v0 (vel_x" in line


@pytest.mark.situation("right")
@pytest.mark.parametrize("kind", OWN)
def test_functions_of_every_kind_train_and_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setitem(TASKS, "Faulty-v0", OWN[kind])
    for agent in ("mbpo", "pets"):
        flags = ("--start-steps", "52", "--steps", "56", "--real-ratio", "0.5")
        out = tmp_path / agent
        flags = flags if agent == "mbpo" else flags[:4]
        assert train(out, agent, *flags, "--unchecked-task") == 0  # it pays something else
    lines = map(json.loads, (tmp_path / "mbpo" / "metrics.jsonl").read_text().splitlines())
    imagined = [m["rollout/imagined_reward"] for m in lines if "rollout/imagined_reward" in m]
    low, high = {"booleans": (0, 1), "columns": (-5, 0), "numbers": (1, 1)}[kind]
    assert imagined
    assert all(low <= value <= high for value in imagined)
    plan = ("--planner", "cem", "--horizon", "3", "--samples", "8", "--elites", "2")
    judge = ("--model", str(tmp_path / "pets"), "--env", ENV, "--episodes", "1", "--max-steps", "3")
    assert main.run(["eval-agent", *judge, *plan]) == 0


@pytest.mark.situation("refused")
def test_functions_that_are_none_are_refused_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert collect() == 0
    model = ("--hidden", "8", "--members", "2", "--steps", "5", "--out", str(tmp_path / "model"))
    assert main.run(["train-model", "--dataset", "own/faulty-v0", *model]) == 0
    monkeypatch.setattr(Faulty, "step", lambda *_: pytest.fail("a step was taken"))
    bad = replace(TASK, reward=lambda obs, act, next_obs: -next_obs.abs())
    monkeypatch.setitem(TASKS, "Faulty-v0", bad)
    words = "the reward function of Faulty-v0 returned values of shape [2, 3, 2] for states"
    offline = ("--dataset", "own/faulty-v0", "--model", str(tmp_path / "model"))
    for agent, flags in (("mbpo", ()), ("pets", ()), ("mopo", offline), ("mopo", offline[:2])):
        assert train(tmp_path / "run", agent, *flags, "--steps", "6000") == 2
        assert words in said(capsys)
        assert not (tmp_path / "run").exists()
    judge = ("--model", str(tmp_path / "model"), "--env", ENV, "--out", str(tmp_path / "out"))
    assert main.run(["eval-agent", *judge]) == 2
    assert words in said(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.situation("refused")
def test_unbounded_actions_are_refused_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "action_space", Box(-np.inf, np.inf, (1,)))
    monkeypatch.setattr(Faulty, "step", lambda *_: pytest.fail("a step was taken"))
    assert collect() == 2
    assert "random actions need a bounded box" in said(capsys)
    for agent in AGENTS:
        assert train(tmp_path / "run", agent, "--steps", "6000") == 2
        assert "agents here need a bounded box" in said(capsys)
        assert not (tmp_path / "run").exists()


@pytest.mark.situation("right")
@pytest.mark.parametrize("agent", AGENTS)
def test_actions_keep_to_an_asymmetric_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: str
) -> None:
    """All of it is used at random, and nothing outside is ever taken."""
    taken: list[float] = []
    plain = Faulty.step

    def step(self: Faulty, action: np.ndarray) -> Any:
        taken.append(float(action[0]))
        return plain(self, action)

    monkeypatch.setattr(Faulty, "action_space", Box(0.0, 5.0, (1,)))
    monkeypatch.setattr(Faulty, "step", step)
    assert train(tmp_path / "run", agent, "--start-steps", "52", "--steps", "56") == 0
    assert len(taken) >= 56
    assert min(taken) >= 0
    assert max(taken) <= 5
    assert min(taken[:52]) < 1 < 4 < max(taken[:52])


@pytest.mark.situation("refused")
@pytest.mark.parametrize("agent", AGENTS)
def test_an_action_that_can_only_be_one_value_is_refused_before_any_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, agent: str
) -> None:
    space = Box(np.float32([0.5]), np.float32([0.5]))
    monkeypatch.setattr(Faulty, "action_space", space)
    assert train(tmp_path / "run", agent, "--start-steps", "40", "--steps", "60") == 2
    assert "Faulty-v0 has actions of which dimension 0 can only be one value" in said(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.situation("refused")
def test_an_environment_that_does_not_know_how_to_draw_has_no_video(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flags = ("--agent", "policy", "--policy", "random", "--env", ENV, "--out", str(tmp_path))
    assert main.run(["eval-agent", *flags, "--video"]) == 2
    *warnings, refusal = capsys.readouterr().err.splitlines()
    assert "--video: Faulty-v0 cannot be drawn here" in refusal
    assert all(line.startswith("warning: ") and "render_mode" in line for line in warnings)
    assert not list(tmp_path.glob("eval-*"))
