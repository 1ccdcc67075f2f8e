"""From settings to an agent: what is built, that a seed decides it, and that it learns."""

import json

import gymnasium
import pytest
import torch

from mbrl_bilevel.agents.build import check_memory, make_agent
from mbrl_bilevel.agents.checks import Acting, task_of, untrained_model
from mbrl_bilevel.agents.cloning import Cloning
from mbrl_bilevel.agents.learning import Learner
from mbrl_bilevel.agents.mbpo import MBPO
from mbrl_bilevel.agents.mopo import MOPO
from mbrl_bilevel.agents.pets import PETS
from mbrl_bilevel.agents.presets import updated
from mbrl_bilevel.agents.sac import SAC
from mbrl_bilevel.agents.settings import (
    CloningSettings,
    MBPOSettings,
    MOPOSettings,
    PETSSettings,
    SACSettings,
)
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.minari import Dataset
from mbrl_bilevel.envs.tasks import TASKS, register_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from tests.agents.point import TASK, point
from tests.agents.small_agents import MODEL, POLICY, ROLLOUTS, random_data, steps

ONLINE = {"steps": 120, "start_steps": 101}
SAC_SETTINGS = updated(SACSettings(), **POLICY, **ONLINE)
MBPO_SETTINGS = updated(MBPOSettings(), **POLICY, **MODEL, **ROLLOUTS, **ONLINE)
MOPO_SETTINGS = updated(MOPOSettings(), **POLICY, **MODEL, **ROLLOUTS, imitate_steps=1)
PETS_SETTINGS = updated(PETSSettings(), **MODEL, **ONLINE, planner="random_shooting")
SPEC = EnvSpec("Point-v0")


@pytest.fixture(autouse=True)
def registered():
    gymnasium.register("Point-v0", "tests.agents.point:Point", max_episode_steps=20)
    register_task(TASK)
    yield
    TASKS.pop("Point-v0")
    gymnasium.registry.pop("Point-v0")


def dataset(low=(-1.0,), high=(0.5,)):
    data, edge = random_data(60), torch.full((2,), torch.inf)
    bounds = -edge, edge, torch.tensor(low), torch.tensor(high)
    return Dataset("point/test-v0", SPEC, data, *bounds, None, {})


def model(members=2):
    settings = updated(MOPO_SETTINGS, members=members)
    spaces = Spaces.of(point())
    return untrained_model(settings, SPEC, TASK, spaces, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("settings", "kind"),
    [(SAC_SETTINGS, SAC), (MBPO_SETTINGS, MBPO), (PETS_SETTINGS, PETS)],
)
@pytest.mark.filterwarnings("ignore:.*")
def test_online_agents_are_built_of_an_id_and_their_seed_decides_them(settings, kind):
    agents = [make_agent(settings, Acting(env=SPEC, seed=seed)) for seed in (0, 0, 1)]
    agents.append(make_agent(settings, "Point-v0"))
    for agent in agents:
        assert type(agent) is kind
        assert isinstance(agent, Learner)
        steps(agent, 103)
    rows = [agent.replay.rows for agent in agents]
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[3])
    assert not torch.equal(rows[0], rows[2])
    assert len(rows[0]) == 120


def test_mopo_learns_from_the_data_set_in_the_model(tmp_path):
    given = model()
    agent = make_agent(MOPO_SETTINGS, "Point-v0", dataset=dataset(), model=given)
    assert isinstance(agent, MOPO)
    assert agent.model is given
    steps(agent, 3)
    agent.save(tmp_path)
    assert DynamicsModel.load(tmp_path).env_id == "Point-v0"
    assert torch.equal(agent.replay.in_order().reward, random_data(60).reward)


def test_behaviour_cloning_learns_from_the_data_set_alone():
    settings = updated(CloningSettings(), policy_hidden=8, policy_batch_size=16)
    agent = make_agent(settings, "Point-v0", dataset=dataset())
    assert isinstance(agent, Cloning)
    assert agent.metadata["algorithm"] == "bc"
    assert torch.equal(agent.replay.in_order().reward, random_data(60).reward)
    for given in ({}, {"dataset": dataset(), "model": model()}):
        with pytest.raises(InputError, match="learns from a data set alone: give it no model"):
            make_agent(settings, "Point-v0", **given)


def test_policies_say_where_they_were_trained_and_by_what():
    agent = make_agent(SAC_SETTINGS, Acting(env=SPEC))
    assert (agent.metadata["env_id"], agent.metadata["algorithm"]) == ("Point-v0", "sac")
    assert EnvSpec.from_plain(json.loads(agent.metadata["env"])) == SPEC


def test_episodes_and_the_check_of_the_task_are_as_asked_for():
    short = make_agent(MBPO_SETTINGS, Acting(env=SPEC, max_steps=7, check_task=False))
    steps(short, 40)
    assert max(length for _, length in short.env.finished) == 7
    assert short.fits.task is None
    assert make_agent(PETS_SETTINGS, "Point-v0").fits.task == TASK


@pytest.mark.situation("refused")
def test_what_an_agent_does_not_take():
    with pytest.raises(InputError, match="MOPO learns from a data set, in a model of it"):
        make_agent(MOPO_SETTINGS, "Point-v0", dataset=dataset())
    with pytest.raises(InputError, match="mbpo learns online, and fits a model of its own"):
        make_agent(MBPO_SETTINGS, "Point-v0", model=model())


def test_memory_is_checked_by_building_everything_once():
    check_memory(MOPO_SETTINGS, Acting(env=SPEC), dataset(), None, torch.device("cpu"))
    huge = updated(MOPO_SETTINGS, rollouts=2**31 - 1, imagined_rounds=100_000)
    with pytest.raises(RuntimeError, match=r"(?i)memory|storage"):
        check_memory(huge, Acting(env=SPEC), dataset(), None, torch.device("cpu"))


def test_an_untrained_model_is_as_the_settings_and_the_task_say():
    settings = updated(MBPO_SETTINGS, members=3, hidden=(5, 4), learn_reward="yes")
    found = untrained_model(settings, SPEC, task_of(SPEC), Spaces.of(point()), None)
    assert (found.members, found.learn_reward) == (3, True)
    assert not model().learn_reward
    sizes = [layer.weight.shape for layer in found.network.network.linear_layers()]
    assert [tuple(size) for size in sizes[:2]] == [(3, 3, 5), (3, 5, 4)]
    assert found.observation_names == TASK.observation_names


def test_pets_acts_by_the_mean_of_the_elites_where_it_is_asked_to():
    settings = updated(PETS_SETTINGS, planner="icem", execute="mean")
    agent = make_agent(settings, "Point-v0")
    assert agent.plan(agent.model).planner.settings.execute == "mean"
