"""Environments of every habit from the first step to the figures of a model, by the commands."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.products import plain_products
from mbrl_bilevel.scripts import main
from tests.agents.generated_env import Generated, Habits, habits
from tests.hypothesis_settings import examples

pytestmark = [pytest.mark.situation("right"), pytest.mark.filterwarnings("ignore")]
ENV = "tests.agents.generated_env:GeneratedEndless-v0"
TINY = ("--steps", "3", "--hidden", "4", "--members", "2")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MINARI_DATASETS_PATH", "")
    before = Generated.habits
    yield
    Generated.habits, Generated.log = before, []
    plain_products()


def ran(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    """What a command found, which must come to its end."""
    capsys.readouterr()
    code = main.run([*argv, "--json"])
    torch.set_flush_denormal(False)  # which hypothesis counts on
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert "Traceback" not in captured.err
    return json.loads(captured.out.splitlines()[-1])


@examples(3)
@given(kind=habits(), steps=st.integers(30, 90), seed=st.integers(0, 2**63 - 1))
def test_collect_train_and_judge(
    capsys: pytest.CaptureFixture[str], kind: Habits, steps: int, seed: int
) -> None:
    Generated.habits, Generated.log = kind, []
    flags = ("--seed", str(seed))
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", folder)
        data, run = ("--dataset", "my/any-v0"), str(Path(folder) / "run")
        collect = ("--env", ENV, "--policy", "random", "--steps", str(steps))
        assert ran(capsys, "collect", *data, *collect, *flags)["steps"] == steps
        trained = ran(capsys, "train-model", *data, *TINY, "--out", run, *flags)
        assert sum(trained["transitions"].values()) == steps
        judged = ran(capsys, "eval-model", "--model", run)
        assert judged["transitions"] == trained["transitions"]["test"]
        assert math.isfinite(trained["test"]["rmse"])
        model, dataset = DynamicsModel.load(run), load_dataset("my/any-v0")
        steps_taken = sum(entry[0] == "step" for entry in Generated.log)
    assert steps_taken == steps
    assert model.env_id == dataset.env_id == "GeneratedEndless-v0"
    assert model.learn_reward
    gaussian = model.predict(dataset.transitions.observation, dataset.transitions.action)
    assert bool(gaussian.mean.isfinite().all())
    assert gaussian.mean.shape == (2, steps, sum(kind.parts.values()) + 1)
