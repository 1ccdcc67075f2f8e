"""Fixtures of the tests on the faulty environment."""

from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import pytest

from mbrl_bilevel.envs.tasks import TASKS
from mbrl_bilevel.products import plain_products
from mbrl_bilevel.scripts import eval_agent, train_agent
from tests.scripts.test_eval_agent import in_this_process
from tests.scripts.test_train_agent import InThisProcess
from tests.situations.faulty_commands import TASK, Answer
from tests.situations.faulty_environment import IDS, Faulty, register


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registers the faulty environment; commands play episodes in this process."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setattr(train_agent, "PolicyEvaluation", InThisProcess)
    monkeypatch.setattr(eval_agent, "play_episodes", in_this_process)
    monkeypatch.setitem(TASKS, "Faulty-v0", TASK)
    register()
    yield
    for name in IDS:
        gymnasium.registry.pop(name, None)
    plain_products()


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], None]:
    """Sets what a step of the faulty environment returns."""
    return lambda function: monkeypatch.setattr(Faulty, "answer", staticmethod(function))
