"""PETS: when it plans, when its model learns, and from where it can go on."""

from functools import partial

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.build_mpc import mpc_in_model
from mbrl_bilevel.agents.learner_state import state_of
from mbrl_bilevel.agents.pets import PETS
from mbrl_bilevel.agents.planning_settings import mpc_settings
from mbrl_bilevel.agents.real_env import RealEnv
from mbrl_bilevel.agents.refit import ModelFits
from mbrl_bilevel.agents.setting_groups import AgentModelSettings, RefitSettings
from mbrl_bilevel.agents.settings import PETSSettings
from mbrl_bilevel.models.dynamics import DynamicsModel
from tests.agents.point import TASK, point

START, EVERY = 102, 5


def make(seed=0, planner="icem", refit_every=EVERY):
    generator = torch.Generator().manual_seed(seed)
    env = point()
    model = DynamicsModel(
        2, 1, AgentModelSettings(members=2, hidden=(8,)), env_id="Point-v0", generator=generator
    )
    planning = mpc_settings("Point-v0", planner, horizon=4, samples=8, elites=3, iterations=1)
    plan = partial(mpc_in_model, env=env, task=TASK, settings=planning, generator=generator)
    settings = PETSSettings(
        steps=300,
        start_steps=START,
        model=AgentModelSettings(members=2, hidden=(8,), model_steps=5),
        refits=RefitSettings(refit_every=refit_every),
    )
    real = RealEnv(point(), seed)
    return PETS(settings, real, model, TASK, generator, plan, check_task=False)


def steps(agent, count):
    for _ in range(count):
        agent.train_step()


def test_it_is_steady_before_it_plans_and_wherever_it_fits_next(monkeypatch):
    agent, fitted, fit = make(), [], ModelFits.fit

    def spy(fits, replay):
        fitted.append(agent.step)
        return fit(fits, replay)

    monkeypatch.setattr(ModelFits, "fit", spy)
    steady = []
    for _ in range(START + 2 * EVERY + 1):
        agent.train_step()
        if agent.can_save:
            steady.append(agent.step)
    assert steady == [*range(1, START + 1), START + EVERY, START + 2 * EVERY]
    assert fitted == [START, START + EVERY, START + 2 * EVERY]


def test_random_actions_fill_the_box_before_the_first_plan():
    """Uniform: mean -0.25 +- 0.043, variance 0.1875 +- 0.017 of 100 draws; 4 errors."""
    agent = make()
    steps(agent, 100)
    action = agent.replay.in_order().action[:, 0]
    assert action.mean().item() == pytest.approx(-0.25, abs=4 * 0.043)
    assert action.var().item() == pytest.approx(0.1875, abs=4 * 0.017)
    assert agent.agent is None
    assert "time/planning_ms_per_step" not in agent.metrics()


@pytest.mark.parametrize("at", [40, START, START + EVERY])
def test_it_goes_on_from_a_steady_step_bit_for_bit(tmp_path, at):
    whole, again = make(), make()
    steps(whole, at)
    whole.save(tmp_path)
    steps(again, 3)
    again.load(tmp_path)
    more = START + 2 * EVERY + 2 - at
    steps(whole, more)
    steps(again, more)
    one, other = state_of(whole), state_of(again)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    a, b = whole.metrics(), again.metrics()
    assert a.pop("time/planning_ms_per_step") > 0
    assert b.pop("time/planning_ms_per_step") > 0
    assert a == b
    assert {"model/fresh_rmse", "model/held_out_nll", "real/return"} <= a.keys()


def test_the_plan_of_an_episode_is_forgotten_at_the_next(monkeypatch):
    agent = make(refit_every=1000)
    steps(agent, START + 1)
    forgotten = []
    assert agent.agent is not None
    monkeypatch.setattr(agent.agent, "reset", lambda: forgotten.append(agent.step))
    ends = []
    for _ in range(25):
        if agent.env.begins:
            ends.append(agent.step)
        agent.train_step()
    assert ends
    assert forgotten == ends


def test_it_has_no_policy_and_leaves_a_model(tmp_path):
    agent = make()
    assert agent.policy() is None
    steps(agent, START + 1)
    agent.save(tmp_path)
    model = DynamicsModel.load(tmp_path)
    for ours, saved in zip(agent.model.parameters(), model.parameters(), strict=True):
        assert np.array_equal(ours.detach().numpy(), saved.detach().numpy())
