"""What a user is told of an environment that answers wrongly, by every command that steps it."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.envs.tasks import TASKS, Task
from mbrl_bilevel.scripts import eval_agent, main, train_agent
from mbrl_bilevel.scripts.command import plain_products
from tests.scripts.own_faulty import Faulty
from tests.scripts.test_eval_agent import in_this_process
from tests.scripts.test_train_agent import InThisProcess

# of plans for states that few steps before have come near
pytestmark = pytest.mark.filterwarnings("ignore:1 of 1 starts lie outside")

HERE = "tests.scripts.own_faulty"
ENV = f"{HERE}:Faulty-v0"
TASK = Task(
    "Faulty-v0",
    lambda obs, act, next_obs: -next_obs[..., 0].square(),
    lambda next_obs: next_obs[..., 0].abs() > 100,
    ("x", "vel_x"),
)
TINY = ("--members", "2", "--hidden", "8", "--policy-hidden", "8", "--episodes", "1")
OFTEN = ("--log-every", "10", "--evaluate-every", "1000")
IMAGINED = ("--imagine-every", "5", "--rollouts", "10", "--updates-per-step", "1")
MODEL = ("--refit-every", "20", "--model-steps", "5")
AGENTS: dict[str, tuple[str, ...]] = {
    "sac": ("--updates-per-step", "1"),
    "mbpo": (*MODEL, *IMAGINED),
    "pets": (*MODEL, "--planner", "random_shooting"),
}
Answer = Callable[[int, tuple[Any, ...]], tuple[Any, ...]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands play in this process, and leave it as it was."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setattr(train_agent, "PolicyEvaluation", InThisProcess)
    monkeypatch.setattr(eval_agent, "play_episodes", in_this_process)
    monkeypatch.setitem(TASKS, "Faulty-v0", TASK)
    yield
    plain_products()


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], None]:
    return lambda function: monkeypatch.setattr(Faulty, "answer", staticmethod(function))


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


def collect(*flags: str, env: str = ENV, dataset: str = "own/faulty-v0") -> int:
    made = ("collect", "--env", env, "--policy", "random", "--dataset", dataset)
    return main.run([*made, "--steps", "50", *flags])


def train(out: Path, agent: str, *flags: str, env: str = ENV) -> int:
    given = ("train-agent", "--agent", agent, "--env", env, "--out", str(out))
    return main.run([*given, *TINY, *OFTEN, *AGENTS.get(agent, ()), *flags])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence that a command ended with."""
    found = [line for line in capsys.readouterr().err.splitlines() if "mbrl-bilevel " in line]
    return found[-1]


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


def teardown_module() -> None:
    for name in ("Faulty-v0", "ByClass-v0", "Endless-v0"):
        gymnasium.registry.pop(name, None)
    sys.modules.pop(HERE, None)


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
