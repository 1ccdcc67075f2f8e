"""From the flags of `train-agent` to an agent that learns."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.agents.dyna import Dyna
from mbrl_bilevel.agents.learning import Learner
from mbrl_bilevel.agents.pets import Pets
from mbrl_bilevel.agents.planner_settings import planner_settings
from mbrl_bilevel.agents.real_env import RealEnv
from mbrl_bilevel.agents.recipe import mpc_agent
from mbrl_bilevel.agents.sac import SAC
from mbrl_bilevel.agents.world import LengthSchedule, World
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.data.transitions import Transitions, split_by_episode
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.objectives.bilevel import Bilevel
from mbrl_bilevel.objectives.gated import GatedPolicyGradient
from mbrl_bilevel.scripts.objectives import ObjectiveFlags, gated, prepare
from mbrl_bilevel.training.fit import fit
from mbrl_bilevel.training.trainer import Samples

HELD_OUT = 0.1  # of the real data, at every fit of an online agent's model


@dataclass(frozen=True)
class Flags:
    """What decides an agent beside its settings."""

    agent: str
    env_id: str
    seed: int
    objective: ObjectiveFlags
    members: int
    elites: int | None
    hidden: tuple[int, ...]
    policy_hidden: int
    policy_learning_rate: float
    discount: float
    planner: str


def online(
    flags: Flags, settings: Mapping[str, Any], task: Task | None, generator: torch.Generator
) -> Learner:
    """An agent that acts in the real environment; `task` is None for SAC alone."""
    env = make_env(flags.env_id)
    obs_dim, act_dim = _sizes(env)
    replay = Replay(settings["steps"], obs_dim, act_dim, generator.device)
    world = None
    if task is not None:
        model = _untrained(flags, task, obs_dim, act_dim, generator)
        world = _world(flags, settings, model, task, env, generator)
    real = RealEnv(env, flags.seed)
    if flags.agent == "pets":
        assert world is not None
        assert task is not None
        return Pets(
            real,
            world,
            replay,
            generator,
            partial(_plan, flags, task, generator),
            start_steps=settings["start_steps"],
            refit_every=settings["refit_every"],
        )
    return _dyna(flags, settings, env, replay, generator, world, real)


def offline(
    flags: Flags,
    settings: Mapping[str, Any],
    task: Task,
    model: DynamicsModel,
    data: Transitions,
    generator: torch.Generator,
) -> Learner:
    """An agent that learns from a data set and a model of it."""
    env = make_env(flags.env_id)
    replay = Replay(len(data), *_sizes(env), generator.device)
    replay.add(
        Batch(
            data.observation,
            data.action,
            data.reward,
            data.next_observation,
            data.terminated.to(data.reward.dtype),
        )
    )
    world = _world(flags, settings, model, task, env, generator)
    return _dyna(flags, settings, env, replay, generator, world, None)


def _dyna(
    flags: Flags,
    settings: Mapping[str, Any],
    env: gymnasium.Env,
    replay: Replay,
    generator: torch.Generator,
    world: World | None,
    real: RealEnv | None,
) -> Dyna:
    box = _action_box(env)
    sac = SAC(
        replay.obs_dim,
        torch.as_tensor(box.low, dtype=torch.float32, device=generator.device),
        torch.as_tensor(box.high, dtype=torch.float32, device=generator.device),
        generator,
        hidden=flags.policy_hidden,
        learning_rate=flags.policy_learning_rate,
        discount=flags.discount,
    )
    return Dyna(
        sac,
        replay,
        generator,
        env=real,
        world=world,
        start_steps=settings.get("start_steps", 0),
        imagine_every=settings.get("refit_every", 1),
        updates_per_step=settings["updates_per_step"],
        real_ratio=settings["real_ratio"],
        metadata={"env_id": flags.env_id, "policy": "trained", "algorithm": flags.agent},
    )


def _world(
    flags: Flags,
    settings: Mapping[str, Any],
    model: DynamicsModel,
    task: Task,
    env: gymnasium.Env,
    generator: torch.Generator,
) -> World:
    observation_space = env.observation_space
    assert isinstance(observation_space, Box)
    return World(
        model,
        task,
        partial(refit, flags.objective, flags.elites, settings["model_steps"], generator),
        generator,
        observation_space=observation_space,
        action_space=_action_box(env),
        rollouts=settings.get("rollouts", 1),
        length=LengthSchedule(*settings.get("rollout_length", ())),
        penalty=settings.get("penalty", "none"),
        penalty_weight=settings.get("penalty_weight", 0.0),
    )


def refit(
    objective: ObjectiveFlags,
    elites: int | None,
    steps: int,
    generator: torch.Generator,
    model: DynamicsModel,
    data: Transitions,
) -> dict[str, float]:
    """Goes on fitting a model, by any objective, to data that have grown."""
    train, held_out = split_by_episode(data, (1 - HELD_OUT, HELD_OUT), generator)
    model.fit_standardizers(train)
    held = Samples(*model.encode(held_out))
    prepared = prepare(objective, model, train, held, steps, generator)
    if isinstance(prepared.objective, Bilevel):
        inner = prepared.objective.inner
        if isinstance(inner, GatedPolicyGradient):
            inner.adopt(model.network)
    result = fit(
        model.network,
        prepared.objective,
        Samples(*model.encode(train)),
        held,
        generator=generator,
        steps=steps,
        learning_rate=1e-3,
        weight_decay=1e-5,
        schedule="constant",
        patience=None,
        evaluate_every=max(1, steps // 4),
        rows=prepared.rows,
        progress=False,
    )
    model.elites = torch.tensor(result.order[:elites], device=generator.device)
    return {
        "held_out_nll": sum(result.nll) / len(result.nll),
        "held_out_mse": sum(result.mse) / len(result.mse),
    }


def _untrained(
    flags: Flags, task: Task, obs_dim: int, act_dim: int, generator: torch.Generator
) -> DynamicsModel:
    with torch.device(generator.device):
        return DynamicsModel(
            obs_dim,
            act_dim,
            learn_reward=task.reward is None,
            members=flags.members,
            hidden=flags.hidden,
            gated=gated(flags.objective, "diagonal"),
            env_id=flags.env_id,
            observation_names=task.observation_names,
            generator=generator,
        )


def _plan(flags: Flags, task: Task, generator: torch.Generator, model: DynamicsModel) -> Any:
    settings = planner_settings(flags.env_id, flags.planner)
    env = make_env(flags.env_id)  # of its own: the terminal value resets it
    try:
        return mpc_agent(model, env, task, flags.planner, settings, generator)
    finally:
        env.close()


def _sizes(env: gymnasium.Env) -> tuple[int, int]:
    assert env.observation_space.shape is not None
    return env.observation_space.shape[0], _action_box(env).shape[0]


def _action_box(env: gymnasium.Env) -> Box:
    assert isinstance(env.action_space, Box)
    return env.action_space
