"""Settings by task, and the replacement of settings by their names."""

import pytest

from mbrl_bilevel.agents.presets import PRESETS, by_name_of, preset, updated
from mbrl_bilevel.agents.setting_groups import RolloutLength
from mbrl_bilevel.agents.settings import (
    AGENTS,
    MBPOSettings,
    MOPOSettings,
    PETSSettings,
    SACSettings,
)
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.settings import MSESettings, TwoMeansSettings


@pytest.mark.parametrize(("agent", "env_id"), PRESETS)
def test_a_preset_changes_what_it_names_and_nothing_else(agent, env_id):
    defaults = by_name_of(AGENTS.settings(agent)())
    found = by_name_of(preset(AGENTS.settings(agent), env_id))
    assert found == defaults | PRESETS[agent, env_id]
    assert found != defaults
    assert by_name_of(preset(AGENTS.settings(agent), "Unknown-v0")) == defaults


def test_settings_are_replaced_in_whichever_group_they_stand():
    before = MBPOSettings()
    lengths = RolloutLength(1, 15, 20_000, 100_000)
    found = updated(before, rollout_length=lengths, discount=0.9, elites=3)
    assert found.rollout.rollout_length == lengths
    assert (found.policy.discount, found.model.elites) == (0.9, 3)
    assert (found.policy.critic_layer_norm, found.refits) == (True, before.refits)
    assert before == MBPOSettings()


def test_an_objective_is_chosen_by_name_or_settings_and_its_own_settings_go_with_it():
    found = updated(MBPOSettings(), objective="two_means", outer_every=7, elites=3)
    assert found.objective == TwoMeansSettings(outer_every=7)
    assert found.model.elites == 3
    assert updated(PETSSettings(), objective=MSESettings()).objective == MSESettings()
    assert updated(found, outer_every=2).objective == TwoMeansSettings(outer_every=2)
    with pytest.raises(InputError, match="--outer-every 7 is no setting of mbpo"):
        updated(MBPOSettings(), objective="nll", outer_every=7)
    with pytest.raises(InputError, match="no objective 'magic'"):
        updated(MBPOSettings(), objective="magic")
    with pytest.raises(InputError, match="--objective nll is no setting of sac"):
        updated(SACSettings(), objective="nll")


def test_rules_between_settings_see_the_new_values_of_all():
    """5,000 random steps of 50 would be refused, and 6 elites of 5 members."""
    assert updated(SACSettings(), steps=50, start_steps=20).start_steps == 20
    assert updated(PETSSettings(), elites=6, members=7).model.elites == 6
    with pytest.raises(InputError, match="--elites 6: choose from 1"):
        updated(PETSSettings(), elites=6)


@pytest.mark.situation("refused")
def test_a_setting_of_another_agent():
    with pytest.raises(InputError, match=r"^--rollouts 10 is no setting of sac: leave it out, or"):
        updated(SACSettings(), rollouts=10)
    with pytest.raises(InputError, match=r"--recent-starts 0.5 is no setting of mopo"):
        updated(MOPOSettings(), recent_starts=0.5)


def test_a_weight_that_is_asked_for_needs_a_penalty_and_a_default_one_does_not():
    with pytest.raises(InputError, match=r"--penalty-weight 2.0 of no penalty: choose one"):
        updated(MBPOSettings(), penalty_weight=2.0)
    assert updated(MBPOSettings(), penalty="disagreement", penalty_weight=2.0).rollout.penalty
    assert updated(MOPOSettings(), penalty="none").rollout.penalty_weight == 2.0
