import subprocess
import sys
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest

from mbrl_bilevel.agents.planning_settings import (
    OF_ENSEMBLES,
    PRESETS,
    PRIOR_PRESET,
    SIMULATOR_PRESETS,
    LearnedModelSettings,
    MPCSettings,
    mpc_settings,
    setting_names,
)
from mbrl_bilevel.envs.tasks import get_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.propagation import KINDS
from mbrl_bilevel.planning.settings import PLANNERS, ICEMSettings, ScoringSettings

SHARED = {"discount", "alive_bonus", "prior", "terminal_value"}
LEARNED = {"pessimism", "disagreement", "propagation", "particles", "data_support_penalty"}


def test_what_the_user_chooses_goes_before_the_preset_and_that_before_the_default() -> None:
    plain, preset = MPCSettings().by_name(), PRESETS["InvertedPendulum-v5"]
    found = mpc_settings("InvertedPendulum-v5", horizon=None, samples=7).by_name()
    assert preset["samples"] != 7
    assert found == plain | preset | {"samples": 7}
    assert mpc_settings("Hopper-v5", alive_bonus=0.5).scoring == ScoringSettings(alive_bonus=0.5)
    assert mpc_settings("Hopper-v5").planner == ICEMSettings()


def test_some_tasks_have_presets_of_their_own_in_the_simulator() -> None:
    found = mpc_settings("Hopper-v5", simulator=True, samples=9).by_name()
    assert found == MPCSettings(model=None).by_name() | SIMULATOR_PRESETS["Hopper-v5"] | {
        "samples": 9
    }
    simulator = mpc_settings("HalfCheetah-v5", simulator=True).by_name()
    learned = mpc_settings("HalfCheetah-v5").by_name()
    assert simulator == {name: learned[name] for name in simulator}
    assert learned["beta"] == PRESETS["HalfCheetah-v5"]["beta"]


@pytest.mark.parametrize("simulator", [False, True])
@pytest.mark.parametrize("planner", PLANNERS.names)
def test_a_planner_gets_the_settings_that_it_has(planner: str, simulator: bool) -> None:
    own = {field.name for field in fields(PLANNERS.settings(planner))}
    names = own | SHARED | (set() if simulator else LEARNED)
    assert set(setting_names(planner, simulator=simulator)) == names
    found = mpc_settings("Swimmer-v5", planner, simulator=simulator)
    assert set(found.by_name()) == names
    assert PLANNERS.name(found.planner) == planner
    assert (found.model is None) == simulator


@pytest.mark.parametrize(
    ("planner", "simulator", "chosen", "words"),
    [
        ("mppi", False, {"elites": 5}, "--elites 5 is no setting of mppi: leave it out"),
        ("icem", False, {"temperature": 0.1}, "--temperature 0.1"),
        ("random_shooting", False, {"init_std": 0.1}, "--init-std 0.1"),
        (
            "icem",
            True,
            {"data_support_penalty": 1.0},
            "--data-support-penalty 1.0 is no setting of planning in the simulator",
        ),
        ("icem", True, {"pessimism": 1.0}, "in the simulator"),
        ("icem", True, {"propagation": "ts1"}, "in the simulator"),
        ("icem", False, {"colour": 1}, "--colour 1"),
        ("icem", False, {"discount": 2.0}, "--discount 2.0: choose at most 1"),
        ("icem", False, {"data_support_penalty": -1.0}, "--data-support-penalty -1.0: choose"),
        ("icem", False, {"particles": 0}, "--particles 0: choose"),
        ("icem", False, {"terminal_value": "critic"}, "--terminal-value critic: name the run"),
        ("random_shooting", False, {"prior": "medium"}, "--prior medium of --planner random_shoot"),
        ("sac", False, {}, "no planner 'sac': choose one of icem, cem"),
    ],
)
def test_settings_that_do_not_apply_are_refused_where_they_are_chosen(
    planner: str, simulator: bool, chosen: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        mpc_settings("InvertedPendulum-v5", planner, simulator=simulator, **chosen)


@pytest.mark.parametrize("name", OF_ENSEMBLES)
def test_the_simulator_has_no_ensemble(name: str) -> None:
    with pytest.raises(InputError, match=f"--{name} 0.5 in the simulator"):
        MPCSettings(scoring=ScoringSettings(**{name: 0.5}), model=None)


def test_propagations_are_those_of_the_models() -> None:
    hint = get_type_hints(LearnedModelSettings)["propagation"]
    assert set(get_args(hint)) == set(KINDS)


@pytest.mark.parametrize("presets", [PRESETS, SIMULATOR_PRESETS])
def test_presets_are_settings_of_tasks(presets: dict[str, dict[str, Any]]) -> None:
    known = set().union(*(setting_names(planner) for planner in PLANNERS.names))
    for env_id, settings in presets.items():
        assert get_task(env_id).env_id == env_id
        assert set(settings) <= known
        for simulator in (False, True):
            mpc_settings(env_id, simulator=simulator)  # within their ranges


def test_settings_are_known_without_torch() -> None:
    code = "import sys, mbrl_bilevel.agents.planning_settings; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_plans_around_a_policy_have_a_preset_of_their_own() -> None:
    found = mpc_settings("InvertedPendulum-v5", "mppi", prior="run", samples=7).by_name()
    assert found["terminal_value"] == "none"
    assert found["prior"] == "run"
    assert found | {"samples": PRIOR_PRESET["samples"]} == found | PRIOR_PRESET
    assert found["samples"] == 7
    for planner in ("icem", "cem"):
        assert mpc_settings("Hopper-v5", planner, prior="run").planner.horizon == 10
        mpc_settings("Hopper-v5", planner, prior="run", simulator=True)
