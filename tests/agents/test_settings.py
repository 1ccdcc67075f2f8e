"""What settings of agents may be, and that they are checked where they are built."""

import math
import subprocess
import sys
from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest

from mbrl_bilevel.agents.presets import by_name_of
from mbrl_bilevel.agents.setting_groups import (
    AgentModelSettings,
    ImitationSettings,
    PolicySettings,
    RefitSettings,
    RolloutLength,
    RolloutSettings,
    StartStateSettings,
    soft_values,
)
from mbrl_bilevel.agents.settings import AGENTS, MBPOSettings, PETSSettings, SACSettings
from mbrl_bilevel.errors import InputError

BAD = {
    "--policy-hidden 0: choose at least 1": lambda: PolicySettings(policy_hidden=0),
    "--policy-batch-size 2147483647: choose at most 1,000,000": lambda: PolicySettings(
        policy_batch_size=2**31 - 1
    ),
    "--discount 1.0: choose at most 0.999999": lambda: PolicySettings(discount=1.0),
    "--discount nan: choose at least 0": lambda: PolicySettings(discount=math.nan),
    "--policy-learning-rate inf": lambda: PolicySettings(policy_learning_rate=math.inf),
    "--actor-learning-rate -0.0001": lambda: PolicySettings(actor_learning_rate=-1e-4),
    "--averaging-rate 0.0: choose a number above 0": lambda: PolicySettings(averaging_rate=0.0),
    "--target-rate 1.5: choose at most 1": lambda: PolicySettings(target_rate=1.5),
    "--temperature 0.0": lambda: PolicySettings(temperature=0.0),
    "--hidden 8 0: choose at least 1": lambda: AgentModelSettings(hidden=(8, 0)),
    "--elites 6: choose from 1 to the number of members, 5": lambda: AgentModelSettings(elites=6),
    "--refit-every 0: choose at least 1": lambda: RefitSettings(refit_every=0),
    "--model-held-out 1.0: choose at most 0.5": lambda: RefitSettings(model_held_out=1.0),
    "--penalty-weight nan": lambda: RolloutSettings(penalty_weight=math.nan),
    "--rollouts 2147483647 of up to 100000 steps, 2147483647 rounds": lambda: RolloutSettings(
        rollouts=2**31 - 1,
        rollout_length=RolloutLength(1, 100_000),
        imagined_rounds=2**31 - 1,
    ),
    "--recent-starts 1.5: choose at most 1": lambda: StartStateSettings(recent_starts=1.5),
    "--value-weight -1.0: choose at least 0": lambda: ImitationSettings(value_weight=-1.0),
    "--steps 0: choose at least 1": lambda: MBPOSettings(steps=0),
    "--start-steps 5000 of --steps 50: nothing is learned": lambda: SACSettings(steps=50),
    "--start-steps 500 of --steps 500: nothing is learned": lambda: PETSSettings(steps=500),
}


@pytest.mark.situation("refused")
@pytest.mark.parametrize("words", BAD)
def test_bad_settings_cannot_be_built(words):
    with pytest.raises(InputError) as found:
        BAD[words]()
    assert str(found.value).startswith(words)


@pytest.mark.parametrize(
    ("step", "length"), [(0, 1), (999, 1), (1000, 1), (1500, 8), (1066, 1), (1067, 2), (2000, 16)]
)
def test_lengths_grow_linearly_in_whole_numbers(step, length):
    assert RolloutLength(1, 16, 1000, 2000)(step) == length
    assert RolloutLength(1, 16, 1000, 2000)(2000 + step) == 16


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ((0, 1, 0, 1), "rollout lengths from 0 at step 0 to 1 at step 1"),
        ((3, 2, 0, 1), "rollout lengths from 3 at step 0 to 2 at step 1"),
        ((1, 2, 5, 5), "rollout lengths from 1 at step 5 to 2 at step 5"),
        ((1, 2, -1, 1), "choose at least 0"),
        ((1, 2**31, 0, 1), "choose at most 2,147,483,647"),
    ],
)
def test_lengths_that_cannot_be(bad, words):
    with pytest.raises(InputError) as found:
        RolloutLength(*bad)
    assert str(found.value).startswith(f"--rollout-length {' '.join(map(str, bad))}: {words}")


@pytest.mark.parametrize("agent", AGENTS.names)
def test_names_are_unique_within_an_agent_and_every_number_has_a_range(agent):
    bare = {int, float, int | None, float | None, tuple[int, ...]}

    def settings(group):
        hints = get_type_hints(type(group), include_extras=True)
        for field in fields(group):
            value = getattr(group, field.name)
            if is_dataclass(value) and not isinstance(value, RolloutLength):
                yield from settings(value)
            else:
                assert hints[field.name] not in bare, field.name
                yield field.name

    names = list(settings(AGENTS.settings(agent)()))
    assert len(names) == len(set(names)) == len(by_name_of(AGENTS.settings(agent)()))


def test_only_icem_has_a_choice_of_what_it_acts_out():
    assert PETSSettings(execute="mean").execute == "mean"
    with pytest.raises(InputError, match="--execute mean of --planner cem: only icem"):
        PETSSettings(planner="cem", execute="mean")


@pytest.mark.parametrize(
    ("wanted", "multi_step", "soft"),
    [(None, False, True), (None, True, False), (True, True, True), (False, False, False)],
)
def test_values_are_soft_unless_targets_are_multi_step_or_it_is_said(wanted, multi_step, soft):
    policy, rollout = (
        PolicySettings(entropy_in_values=wanted),
        RolloutSettings(multi_step=multi_step),
    )
    assert soft_values(policy, rollout) == soft


def test_settings_and_presets_are_known_without_torch():
    """`--help` needs them alone, and importing torch takes seconds."""
    program = (
        "import sys, mbrl_bilevel.agents.settings, mbrl_bilevel.agents.presets;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
