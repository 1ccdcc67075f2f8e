import inspect
from typing import Any

import pytest

from mbrl_bilevel.agents.planner_settings import (
    BY_TASK,
    DEFAULTS,
    IN_SIMULATOR,
    LEARNED,
    PLANNERS,
    planner_settings,
)
from mbrl_bilevel.envs.tasks import get_task
from mbrl_bilevel.errors import InputError


def test_what_the_user_chooses_goes_before_what_was_measured() -> None:
    plain = {name: value for name, value in DEFAULTS.items() if name != "temperature"}
    measured = planner_settings("InvertedPendulum-v5", horizon=None, samples=7)
    assert measured == plain | BY_TASK["InvertedPendulum-v5"] | {"samples": 7}
    assert planner_settings("Hopper-v5", caution=0.5) == plain | {"caution": 0.5}


def test_some_tasks_have_settings_of_their_own_in_the_simulator() -> None:
    measured = planner_settings("Hopper-v5", simulator=True, samples=7)
    assert measured["samples"] == 7
    others = IN_SIMULATOR["Hopper-v5"].keys() - {"samples"}
    assert all(measured[name] == IN_SIMULATOR["Hopper-v5"][name] for name in others)
    assert planner_settings("Hopper-v5")["horizon"] == DEFAULTS["horizon"]
    shared = planner_settings("HalfCheetah-v5", simulator=True)
    assert shared == {name: planner_settings("HalfCheetah-v5")[name] for name in shared}


@pytest.mark.parametrize("simulator", [False, True])
@pytest.mark.parametrize(
    ("planner", "own"),
    [
        ("random_shooting", {"horizon", "samples", "action_repeat"}),
        ("cem", {"horizon", "samples", "iterations", "elites", "init_std", "action_repeat"}),
        (
            "icem",
            {"horizon", "samples", "iterations", "elites", "beta", "init_std", "action_repeat"},
        ),
        (
            "mppi",
            {"horizon", "samples", "iterations", "temperature", "beta", "init_std"}
            | {"action_repeat"},
        ),
    ],
)
def test_a_planner_gets_the_settings_that_it_has(
    planner: str, own: set[str], simulator: bool
) -> None:
    learned = set() if simulator else set(LEARNED)
    found = planner_settings("Swimmer-v5", planner, simulator)
    assert set(found) == own | {"discount", "survival", "terminal_value"} | learned
    assert all(found[name] == DEFAULTS[name] for name in found)


@pytest.mark.parametrize(
    ("planner", "simulator", "chosen", "words"),
    [
        ("mppi", False, {"elites": 5}, "elites 5 is no setting of planning of mppi"),
        ("icem", False, {"temperature": 0.1}, "temperature 0.1"),
        ("random_shooting", False, {"init_std": 0.1}, "init-std 0.1"),
        ("icem", True, {"caution": 1.0}, "caution 1.0 is no setting of planning in the simulator"),
        ("icem", True, {"propagation": "ts1"}, "in the simulator"),
        ("icem", False, {"colour": 1}, "colour 1"),
        ("sac", False, {}, "no planner 'sac': choose one of icem, cem"),
    ],
)
def test_settings_that_do_not_apply_are_refused_where_they_are_chosen(
    planner: str, simulator: bool, chosen: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        planner_settings("InvertedPendulum-v5", planner, simulator, **chosen)


@pytest.mark.parametrize("planner", PLANNERS)
def test_defaults_are_those_of_the_planners_themselves(planner: str) -> None:
    """What the library does unasked and what the command line does must not part."""
    for name, parameter in inspect.signature(PLANNERS[planner]).parameters.items():
        if name in DEFAULTS:
            assert parameter.default == DEFAULTS[name]


@pytest.mark.parametrize("measured", [BY_TASK, IN_SIMULATOR])
def test_measured_settings_are_settings(measured: dict[str, dict[str, Any]]) -> None:
    for env_id, settings in measured.items():
        assert get_task(env_id).env_id == env_id
        assert set(settings) <= set(DEFAULTS)
