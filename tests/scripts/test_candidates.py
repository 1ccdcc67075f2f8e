"""From flags to the agents that are evaluated."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import torch

from mbrl_bilevel.agents.agent_spec import MPCSpec, SimulatorSpec
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.planning.settings import PLANNERS
from mbrl_bilevel.ranges import Range
from mbrl_bilevel.scripts.candidates import (
    SIMULATOR,
    check,
    environment,
    planning_candidates,
    trained_policies,
)
from mbrl_bilevel.scripts.flags.eval_agent import parse

ENV = "InvertedPendulum-v5"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    made = DynamicsModel(
        4, 1, ModelSettings(members=2, hidden=(8,)), env_id=ENV, generator=generator
    )
    made.save(tmp_path / "model")
    return tmp_path / "model"


def test_every_planner_plans_in_every_model_with_the_settings_that_it_has(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {"samples": 8, "elites": 3, "data_support_penalty": 0.5, "beta": None}
    models, planners = (model, SIMULATOR), PLANNERS.names
    found = planning_candidates(models, planners, ENV, chosen, device="cpu", threads=2)
    names = [f"{one} {planner}" for one in ("model", "simulator") for planner in planners]
    assert [one.name for one in found] == names
    assert [one.planner for one in found] == [*planners, *planners]
    for one in found:
        in_model = one.model != SIMULATOR
        assert isinstance(one.spec, MPCSpec if in_model else SimulatorSpec)
        assert one.settings["samples"] == 8
        assert one.settings.get("elites") == (3 if one.planner in ("icem", "cem") else None)
        assert one.settings.get("data_support_penalty") == (0.5 if in_model else None)
    said = capsys.readouterr().err.splitlines()
    assert "simulator mppi has no --data-support-penalty and is evaluated without it" in said
    assert "model random_shooting has no --elites and is evaluated without it" in said
    assert len(said) == 2 * 2 + 4  # elites of two planners in two models, the penalty of four
    assert check(found, EnvSpec(ENV), 30) == (30, None)


def test_a_setting_that_no_candidate_has_is_refused(model: Path) -> None:
    for models, chosen, words in (
        ((model,), {"temperature": 1.0}, "--temperature 1.0 is no setting of icem"),
        ((SIMULATOR,), {"particles": 2}, "--particles 2 is no setting of planning in the simul"),
        ((model, SIMULATOR), {"horizon": 0}, "--horizon 0: choose at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            planning_candidates(models, ("icem", "cem"), ENV, chosen, device="cpu", threads=1)


def test_names_tell_folders_apart(tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "other"]
    names = [one.name for one in trained_policies(folders)]
    assert names == [str(folders[0]), str(folders[1]), "other"]
    with pytest.raises(InputError, match="twice"):
        trained_policies([folders[0], tmp_path / "b" / ".." / "a" / "run"])


def test_the_environment_is_named_or_that_of_the_first_model(model: Path) -> None:
    assert environment((SIMULATOR, model), "mpc", None).id == ENV
    assert environment((SIMULATOR,), "mpc", "Hopper-v5") == EnvSpec("Hopper-v5")
    with pytest.raises(InputError, match="name the environment by --env"):
        environment((SIMULATOR,), "mpc", None)
    with pytest.raises(InputError, match="not for Hopper-v5"):
        environment((model,), "mpc", "Hopper-v5")


@dataclass(frozen=True, kw_only=True)
class IdleSettings:
    """Nothing is done."""

    horizon: Annotated[int, Range(1, 9)] = 2
    """Steps of the plan."""
    laziness: float = 1.0
    """How little is done."""


class Idle:
    """A planner of one's own, which leaves all actions at 0."""

    def __init__(self, low, high, settings, *, scoring):
        self.shape, self.settings, self.scoring = (settings.horizon, len(low)), settings, scoring

    def __call__(self, model, task, obs, generator):
        return torch.zeros(len(obs), *self.shape)

    def reset(self):
        pass


def test_a_planner_of_ones_own_has_flags_and_plans(model: Path) -> None:
    PLANNERS.register("idle", IdleSettings, Idle)
    try:
        config = parse(["--planner", "idle", "--laziness", "3", "--discount", "0.9"])
        assert config.planning == {"laziness": 3.0, "discount": 0.9}
        (found,) = planning_candidates(
            (model,), config.planners, ENV, config.planning, device="cpu", threads=1
        )
        assert (found.settings["laziness"], found.settings["horizon"]) == (3.0, 4)  # 4 by task
        env = make_env(ENV)
        agent = found.spec.agent(env, ENV, 0)
        assert agent.act(env.reset(seed=0)[0]).tolist() == [0.0]
        assert agent.planner.scoring.settings.discount == 0.9
    finally:
        PLANNERS.unregister("idle")
