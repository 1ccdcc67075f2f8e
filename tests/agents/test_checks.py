"""What no agent can be built of is one sentence, before anything else."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.agents.checks import Acting, check_agent, task_of
from mbrl_bilevel.agents.presets import updated
from mbrl_bilevel.agents.settings import MBPOSettings, MOPOSettings, PETSSettings, SACSettings
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.tasks import TASKS, register_task
from mbrl_bilevel.errors import InputError
from tests.agents.point import TASK, Point
from tests.agents.test_build import dataset, model

SPEC = EnvSpec("Point-v0")


@pytest.fixture(autouse=True)
def registered():
    names = ("Point-v0", "Free-v0", "Flat-v0", "Endless-v0", "Untold-v0")
    for name in names:
        limit = None if name == "Endless-v0" else 20
        gymnasium.register(name, f"{__name__}:{name[:-3]}", max_episode_steps=limit)
    register_task(TASK)
    yield
    TASKS.pop("Point-v0")
    for name in names:
        gymnasium.registry.pop(name)


class Free(Point):
    action_space = Box(-np.inf, np.inf, (1,), np.float32)


class Flat(Point):
    action_space = Box(np.array([-1, 0], np.float32), np.array([1, 0], np.float32))


class Endless(Point):
    """As the point, without a limit."""


class Untold(Point):
    """As the point, without a task."""


def check(settings, env="Point-v0", max_steps=None, **given):
    check_agent(settings, Acting(env=EnvSpec(env), max_steps=max_steps), **given)


def test_what_is_well_is_let_through():
    for settings in (SACSettings(), MBPOSettings(), PETSSettings(), MOPOSettings()):
        check(settings)
    check(SACSettings(), "Untold-v0")
    check(SACSettings(), "Endless-v0", max_steps=5)
    check(MOPOSettings(), dataset=dataset(), model=model())
    assert task_of(SPEC) == TASK


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("Free-v0", "Free-v0 has actions .*; agents here need a bounded box"),
        ("Flat-v0", "Flat-v0 has actions of which dimension 1 can only be one value"),
        ("Endless-v0", "Endless-v0"),
    ],
)
def test_environments_in_which_no_agent_can_act(env, words):
    with pytest.raises(InputError, match=words):
        check(SACSettings(), env)


@pytest.mark.situation("refused")
def test_a_model_needs_a_task():
    for settings in (MBPOSettings(), PETSSettings(), MOPOSettings()):
        with pytest.raises(InputError, match=r"no task for environment 'Untold-v0'.*in ten lines"):
            check(settings, "Untold-v0")


@pytest.mark.situation("refused")
def test_settings_that_do_not_go_with_the_environment_or_the_model():
    with pytest.raises(InputError, match=r"--target-entropy 0.7: 1 actions .* less than 0.693"):
        check(updated(SACSettings(), target_entropy=0.7))
    check(updated(SACSettings(), target_entropy=0.6))
    with pytest.raises(InputError, match=r"--start-steps 2: too few .* choose at least 3"):
        check(updated(PETSSettings(), start_steps=2))
    with pytest.raises(InputError, match=r"weight decay of 5.0 at a learning rate of 0.5"):
        check(updated(MBPOSettings(), model_weight_decay=5.0, model_learning_rate=0.5))
    alone = updated(MOPOSettings(), penalty="disagreement", members=1)
    with pytest.raises(InputError, match="disagreement of one member"):
        check(alone)
    check(alone, model=model(members=2))  # the model that is given counts
    with pytest.raises(InputError, match="disagreement of one member"):
        check(updated(MOPOSettings(), penalty="disagreement"), model=model(members=1))
    with pytest.raises(InputError, match="--rollout-cut of one member"):
        check(updated(MBPOSettings(), multi_step=False, rollout_cut="disagreement", members=1))


@pytest.mark.situation("refused")
def test_a_data_set_of_another_environment():
    narrow = dataset(low=(-1.0,), high=(0.4,))
    with pytest.raises(InputError, match="data set point/test-v0"):
        check(MOPOSettings(), dataset=narrow, model=model())
    obs = torch.zeros(60, 5)
    data = replace(narrow.transitions, observation=obs, next_observation=obs)
    wide = replace(dataset(), transitions=data)
    with pytest.raises(InputError, match="has 5 observation and 1 action dimensions, Point-v0"):
        check(MOPOSettings(), dataset=wide, model=model())
