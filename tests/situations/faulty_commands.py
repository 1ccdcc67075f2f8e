"""Commands on the faulty environment: `collect` and `train-agent`, and what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.scripts import main
from tests.scripts.tiny_agents import tiny

HERE = "tests.situations.faulty_environment"
ENV = f"{HERE}:Faulty-v0"
TASK = Task(
    "Faulty-v0",
    lambda obs, act, next_obs: -next_obs[..., 0].square(),
    lambda next_obs: next_obs[..., 0].abs() > 100,
    ("x", "vel_x"),
)
OFTEN = ("--log-every", "10")
IMAGINED = ("--imagine-every", "5", "--rollouts", "10", "--updates-per-step", "1")
MODEL = ("--refit-every", "20", "--model-steps", "5")
AGENTS: dict[str, tuple[str, ...]] = {
    "sac": ("--updates-per-step", "1"),
    "mbpo": (*MODEL, *IMAGINED),
    "pets": (*MODEL, "--planner", "random_shooting"),
}
Answer = Callable[[int, tuple[Any, ...]], tuple[Any, ...]]


def collect(*flags: str, env: str = ENV, dataset: str = "own/faulty-v0") -> int:
    made = ("collect", "--env", env, "--policy", "random", "--dataset", dataset)
    return main.run([*made, "--steps", "50", *flags])


def train(out: Path, agent: str, *flags: str, env: str = ENV) -> int:
    given = ("train-agent", "--agent", agent, "--env", env, "--out", str(out))
    return main.run([*given, *tiny(agent, episodes="1"), *OFTEN, *AGENTS.get(agent, ()), *flags])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence that a command ended with."""
    found = [line for line in capsys.readouterr().err.splitlines() if "mbrl-bilevel " in line]
    return found[-1]
