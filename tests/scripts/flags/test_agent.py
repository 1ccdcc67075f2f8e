"""Settings of agents as flags, and back."""

from dataclasses import replace

import pytest

from mbrl_bilevel.agents.presets import by_name_of, updated
from mbrl_bilevel.agents.setting_groups import RolloutLength
from mbrl_bilevel.agents.settings import AGENTS, MBPOSettings
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.settings import TwoMeansSettings
from mbrl_bilevel.scripts.flags.agent import agent_groups, agent_of, agent_settings
from mbrl_bilevel.scripts.flags.parse import parse_groups


@pytest.mark.parametrize("agent", AGENTS.names)
def test_every_setting_is_one_flag_with_its_value_as_default(agent: str) -> None:
    settings = agent_of(agent, "Hopper-v5", [])
    flags = [flag for group in agent_groups(settings).values() for flag in group.flags]
    defaults = {flag.name: flag.default for flag in flags}
    assert len(defaults) == len(flags)
    del defaults["agent"]
    assert defaults.pop("objective", "nll") == "nll"
    if "rollout_length" in defaults:
        defaults["rollout_length"] = RolloutLength(*defaults["rollout_length"])
    assert defaults == by_name_of(settings)


def test_before_flags_a_preset_applies_and_the_objective_that_is_named() -> None:
    found = agent_of("mbpo", "Hopper-v5", ["--objective", "two_means"])
    assert found.objective == TwoMeansSettings()
    assert found.policy.discount == 0.995
    assert agent_of("mbpo", "none", []) == MBPOSettings()


def test_what_is_given_replaces_settings_in_whichever_group() -> None:
    line = (
        "--agent mbpo --objective two_means --outer-folds 3 --rollout-length 1 4 10 20 --members 3"
    )
    start = agent_of("mbpo", "none", line.split())
    given = parse_groups(agent_groups(start), line.split(), "train-agent", "")
    expected = updated(
        replace(MBPOSettings(), objective=TwoMeansSettings(outer_folds=3)),
        rollout_length=RolloutLength(1, 4, 10, 20),
        members=3,
    )
    assert agent_settings(start, given) == expected


def test_values_that_contradict_each_other_are_refused() -> None:
    start = MBPOSettings()
    given = parse_groups(agent_groups(start), ["--penalty-weight", "2", "--agent=mbpo"], "x", "")
    with pytest.raises(InputError, match=r"--penalty-weight 2\.0 of no penalty"):
        agent_settings(start, given)
