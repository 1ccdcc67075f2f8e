"""Small agents on the point: they learn in milliseconds."""

import torch

from mbrl_bilevel.agents.dhmbpo import DHMBPO
from mbrl_bilevel.agents.learner_state import state_of
from mbrl_bilevel.agents.mbpo import MBPO
from mbrl_bilevel.agents.mopo import MOPO
from mbrl_bilevel.agents.presets import updated
from mbrl_bilevel.agents.real_env import RealEnv
from mbrl_bilevel.agents.sac import SAC
from mbrl_bilevel.agents.setting_groups import RolloutLength
from mbrl_bilevel.agents.settings import DHMBPOSettings, MBPOSettings, MOPOSettings, SACSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from tests.agents.point import TASK, point

LOW, HIGH = torch.tensor([-1.0]), torch.tensor([0.5])
IMAGINED = 1000.0  # a reward that no real step pays

POLICY = {"policy_hidden": 8, "policy_batch_size": 16, "updates_per_step": 1}
MODEL = {"members": 2, "hidden": (8,), "model_steps": 5}
ROLLOUTS = {
    "rollouts": 10,
    "rollout_length": RolloutLength(1, 3, 100, 120),
    "imagine_every": 7,
    "real_ratio": 1.0,
    "multi_step": False,
}


def paid(obs, act, next_obs):
    return torch.full_like(obs[..., 0], IMAGINED)


def metadata(name):
    return {"env_id": "Point-v0", "algorithm": name}


def sac(seed=0, **settings):
    chosen = {**POLICY, "steps": 400, "start_steps": 101, **settings}
    found = updated(SACSettings(), **chosen)
    generator = torch.Generator().manual_seed(seed)
    return SAC(found, RealEnv(point(), seed), generator, metadata=metadata("sac"))


def mbpo(seed=0, *, task=TASK, fit=None, **settings):
    """`fit` takes the place of the fits of the model, as `ModelFits.fit_to`."""
    online = {"steps": 400, "start_steps": 101, "refit_every": 7, "recent_starts": 0.0}
    found = updated(MBPOSettings(), **{**POLICY, **MODEL, **ROLLOUTS, **online, **settings})
    generator = torch.Generator().manual_seed(seed)
    agent = MBPO(
        found,
        RealEnv(point(), seed),
        model(generator),
        task,
        generator,
        check_task=False,
        metadata=metadata("mbpo"),
    )
    if fit is not None:
        agent.fits.fit_to = fit
    return agent


def dhmbpo(seed=0, *, fit=None, model_options=None, kind="gaussian", **settings):
    """`fit` as of `mbpo`; `model_options` in place of the published ones."""
    rollouts = {"horizon": 3, "detached_horizon": 4, "detached_every": 5, "critic_updates": 4}
    online = {"steps": 400, "start_steps": 101, "refit_every": 7, "first_model_steps": 8}
    found = updated(DHMBPOSettings(), **{**POLICY, **MODEL, **rollouts, **online, **settings})
    generator = torch.Generator().manual_seed(seed)
    options = {"noise": "constant", "layer_norm": True, "dropout": 0.1}
    options = options if model_options is None else model_options
    own = DynamicsModel(
        2,
        1,
        ModelSettings(members=2, hidden=(8,), **options),
        learn_reward=True,
        kind=kind,
        env_id="Point-v0",
        generator=generator,
    )
    agent = DHMBPO(
        found,
        RealEnv(point(), seed),
        own,
        TASK,
        generator,
        check_task=False,
        metadata=metadata("dhmbpo"),
    )
    if fit is not None:
        agent.fits.fit_to = fit
    return agent


def mopo(seed=0, *, data=None, task=TASK, **settings):
    offline = {"imitate_steps": 0, "penalty": "none"}
    found = updated(MOPOSettings(), **{**POLICY, **MODEL, **ROLLOUTS, **offline, **settings})
    generator = torch.Generator().manual_seed(seed)
    return MOPO(
        found,
        data or random_data(60),
        model(generator),
        task,
        Spaces.of(point()),
        generator,
        metadata=metadata("mopo"),
    )


def model(generator):
    return DynamicsModel(
        2, 1, ModelSettings(members=2, hidden=(8,)), env_id="Point-v0", generator=generator
    )


def random_data(count, terminated=False):
    generator = torch.Generator().manual_seed(3)
    obs, after = torch.randn(2, count, 2, generator=generator).clamp(-1, 1)
    action = LOW + 1.5 * torch.rand(count, 1, generator=generator)
    ends = torch.zeros(count, dtype=torch.bool)
    if terminated:
        ends[::2] = True
    nowhere = torch.zeros(count, dtype=torch.bool)
    episode = torch.arange(count) // 20
    return Transitions(obs, action, -after[:, 0].square(), after, ends, nowhere, episode)


def no_fit(data):
    return {}


def steps(agent, count):
    for _ in range(count):
        agent.train_step()


def batches_of(agent, monkeypatch):
    """The batches that its policy learns from, how, and the metrics of each update."""
    seen, update = [], agent.learner.networks.update

    def spy(batch, **how):
        seen.append((batch, how, update(batch, **how)))
        return seen[-1][-1]

    monkeypatch.setattr(agent.learner.networks, "update", spy)
    return seen


def assert_continues(make, folder, first, more, elsewhere=3):
    """Saves after `first` steps; another agent that loads goes on for `more`, bit for bit."""
    whole, again = make(), make()
    steps(whole, first)
    whole.save(folder)
    steps(again, elsewhere)  # it was somewhere else
    again.load(folder)
    assert again.step == first
    steps(whole, more)
    steps(again, more)
    assert whole.metrics() == again.metrics()
    one, other = state_of(whole), state_of(again)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    return again
