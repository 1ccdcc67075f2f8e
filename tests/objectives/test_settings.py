"""Settings of objectives: what is refused where they are built, and that torch is not imported."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.settings import (
    OBJECTIVES,
    BetaNLLSettings,
    BilevelSettings,
    TwoMeansSettings,
)
from mbrl_bilevel.objectives.spec import ObjectiveSpec


@pytest.mark.parametrize(
    ("settings", "values", "words"),
    [
        (BetaNLLSettings, {"beta": 2.0}, "--beta 2.0: choose at most 1"),
        (
            BilevelSettings,
            {"outer_objective": "one_step", "reward": "neural"},
            "add --inner-estimator reparameterized",
        ),
        (BilevelSettings, {"reward": "diagonal"}, "add --outer-objective one_step"),
        (
            BilevelSettings,
            {"reward": "mean", "outer_objective": "one_step"},
            "choose --outer-objective k_step",
        ),
        (BilevelSettings, {"inner_estimator": "reparameterized"}, "has nothing to sample"),
        (BilevelSettings, {"outer_objective": "visited"}, "name the policy by --visited-by"),
        (
            BilevelSettings,
            {"visited_by": "medium"},
            "--visited-by medium is of --outer-objective visited, not of k_step",
        ),
        (
            BilevelSettings,
            {
                "outer_objective": "visited",
                "visited_by": "a",
                "inner_estimator": "reparameterized",
            },
            "has nothing to sample",
        ),
        (BilevelSettings, {"outer_horizon": 0}, "--outer-horizon 0: choose at least 1"),
        (TwoMeansSettings, {"outer_every": 0}, "--outer-every 0: choose at least 1"),
    ],
)
def test_values_are_refused_where_settings_are_built(settings, values, words):
    with pytest.raises(InputError, match=words):
        settings(**values)


def test_the_outer_objective_decides_what_is_not_given():
    """The measured settings of each; what is given is kept."""
    found = [
        (s.every, s.batch_size, s.learning_rate, s.differentiated_by)
        for s in (
            BilevelSettings(),
            BilevelSettings(outer_objective="one_step"),
            BilevelSettings(outer_every=7, outer_batch_size=9, outer_learning_rate=0.5),
            BilevelSettings(outer_objective="one_step", hypergradient="soba"),
            BilevelSettings(outer_objective="visited", visited_by="a"),
            BilevelSettings(outer_objective="visited", visited_by="a", reward="scalar"),
        )
    ]
    assert found == [
        (20, 64, 4e-2, "fisher"),
        (3, 128, None, "implicit"),
        (7, 9, 0.5, "fisher"),
        (3, 128, None, "soba"),
        (20, 128, 4e-2, "fisher"),
        (3, 128, None, "implicit"),
    ]
    assert (TwoMeansSettings().every, TwoMeansSettings().batch_size) == (3, 128)


@pytest.mark.parametrize("name", OBJECTIVES.names)
def test_an_objective_is_built_for_its_kind_of_network_alone(name):
    spec = OBJECTIVES.settings(name)()
    own = {"two_means": "two_means", "separate": "separate_noise", "natural": "natural"}
    assert spec.kind == own.get(name, "gaussian")


def test_settings_that_nobody_registered_are_refused():
    @dataclass(frozen=True, kw_only=True)
    class Mine(ObjectiveSpec):
        pass

    with pytest.raises(InputError, match="Mine are no settings of any objective"):
        OBJECTIVES.name(Mine())


def test_settings_do_not_import_torch():
    code = "import sys, mbrl_bilevel.objectives.settings; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
