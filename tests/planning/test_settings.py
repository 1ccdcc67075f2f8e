import math
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.settings import (
    PLANNERS,
    CEMSettings,
    ICEMSettings,
    MPPISettings,
    RandomShootingSettings,
    ScoringSettings,
)

BOX = [-8.0], [8.0]


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (RandomShootingSettings, {"horizon": 0}, "--horizon 0: choose at least 1"),
        (RandomShootingSettings, {"action_repeat": 0}, "--action-repeat 0: choose at least 1"),
        (CEMSettings, {"samples": 0}, "--samples 0: choose at least 1"),
        (CEMSettings, {"iterations": 1_000_001}, "--iterations 1000001: choose at most 1,000,000"),
        (CEMSettings, {"elites": 0}, "--elites 0: choose at least 1"),
        (CEMSettings, {"elites": 129}, "--elites 129: there are only 128 samples"),
        (CEMSettings, {"init_std": math.nan}, "--init-std nan: choose at least 1e-06"),
        (ICEMSettings, {"elites": 129}, "--elites 129: there are only 128 samples"),
        (ICEMSettings, {"momentum": 1.0}, "--momentum 1.0: choose at most 0.999"),
        (ICEMSettings, {"population_decay": 0.9}, "--population-decay 0.9: choose at least 1"),
        (ICEMSettings, {"keep": 1.1}, "--keep 1.1: choose at most 1"),
        (MPPISettings, {"temperature": 0.0}, "--temperature 0.0: choose at least 0.001"),
        (MPPISettings, {"beta": math.inf}, "--beta inf: choose at most 100"),
        (ScoringSettings, {"discount": 1.1}, "--discount 1.1: choose at most 1"),
        (ScoringSettings, {"alive_bonus": -1.0}, "--alive-bonus -1.0: choose at least 0"),
    ],
)
def test_bad_settings(kind: type, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as found:
        kind(**changes)
    assert str(found.value).startswith(words)


@pytest.mark.parametrize("name", PLANNERS.names)
def test_a_planner_takes_settings_or_some_of_them_by_name(name: str) -> None:
    kind = PLANNERS.settings(name)
    build = PLANNERS.builder(kind())
    assert build(*BOX).settings == kind()
    assert build(*BOX, samples=77).settings == kind(samples=77)
    assert build(*BOX, kind(samples=77), horizon=3).settings == kind(samples=77, horizon=3)
    with pytest.raises(InputError, match="--samples 0"):
        build(*BOX, samples=0)
    with pytest.raises(TypeError, match="colour"):
        build(*BOX, colour=1)


def test_a_planner_has_no_settings_that_it_does_not_use() -> None:
    own = {name: {f.name for f in fields(PLANNERS.settings(name))} for name in PLANNERS.names}
    every = {"horizon", "samples", "action_repeat"}
    refitting = {"iterations", "elites", "init_std", "momentum"}
    assert own == {
        "random_shooting": every,
        "cem": every | refitting,
        "icem": every | refitting | {"beta", "population_decay", "keep", "execute"},
        "mppi": every | {"iterations", "temperature", "beta", "init_std"},
    }


def test_settings_are_known_without_torch() -> None:
    code = "import sys, mbrl_bilevel.planning.settings; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
