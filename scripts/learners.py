"""From the flags of `train-agent` to an agent that learns."""

import json
import math
from collections.abc import Mapping
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
from mbrl_bilevel.agents.world import World
from mbrl_bilevel.data.minari import Dataset
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.envs.action_box import require_same_box
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.stepping import step_limit
from mbrl_bilevel.envs.task_functions import check_task
from mbrl_bilevel.envs.tasks import Task, planned_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts.agent_flags import Flags
from mbrl_bilevel.scripts.agent_model import action_box, env_sizes, make_world, untrained_model
from mbrl_bilevel.scripts.first_fit import check_first_fit


def check(
    flags: Flags,
    settings: Mapping[str, Any],
    task: Task | None,
    dataset: Dataset | None,
    model: DynamicsModel | None,
) -> None:
    """Refuses what no agent could be built of, before anything is written or trained.

    `model` is None where one is yet to be trained.

    Raises:
        InputError: episodes without end; bounds of actions, sizes, rates or flags that do not go
            together.
    """
    env = make_env(flags.env)
    step_limit(env, flags.max_steps)
    box = action_box(env)
    if not box.is_bounded():
        raise InputError(f"{flags.env} has actions {box}; agents here need a bounded box")
    if (box.low >= box.high).any():
        raise InputError(
            f"{flags.env} has actions of which dimension {int((box.low >= box.high).argmax())} can "
            "only be one value: leave it out of the action space, by a wrapper"
        )
    if flags.agent != "pets":
        _sac(flags, settings, env, torch.Generator())
        _check_target_entropy(settings["target_entropy"], box)
    if task is not None:
        check_task(task, *env_sizes(env))
    if task is not None and flags.agent != "mopo":
        check_first_fit(flags.objective, flags.members, settings["start_steps"])
    if task is not None and model is None:
        with torch.device("meta"):  # nothing is allocated
            untrained_model(flags, task, *env_sizes(env), None)
    elites = len(model.elites) if model is not None else flags.elites or flags.members
    if settings.get("penalty") == "disagreement" and elites < 2:
        raise InputError("--penalty disagreement of one member: keep 2 --members and --elites")
    if dataset is not None:
        data = dataset.transitions
        sizes = data.observation.shape[1], data.action.shape[1]
        if sizes != env_sizes(env):
            raise InputError(
                f"the data set has {sizes[0]} observation and {sizes[1]} action dimensions, "
                f"{flags.env} has {env_sizes(env)[0]} and {env_sizes(env)[1]}: name by --env the "
                "environment that it was collected in"
            )
        require_same_box(dataset.action_box, box, f"data set {dataset.id}", str(flags.env))
    env.close()


def _check_target_entropy(target: float | None, box: Box) -> None:
    """Refuses more entropy than uniform actions have: the temperature would grow without end."""
    most = box.shape[0] * math.log(2)
    if target is not None and target >= most:
        raise InputError(
            f"--target-entropy {target}: {box.shape[0]} actions in [-1, 1] have less than "
            f"{most:.3g} nats, uniform ones; choose less"
        )


def online(
    flags: Flags, settings: Mapping[str, Any], task: Task | None, generator: torch.Generator
) -> Learner:
    """An agent that acts in the real environment; `task` is None for SAC alone."""
    env = make_env(flags.env)
    obs_dim, act_dim = env_sizes(env)
    replay = Replay(settings["steps"], obs_dim, act_dim, generator.device)
    world = None
    if task is not None:
        with torch.device(generator.device):
            model = untrained_model(flags, task, obs_dim, act_dim, generator)
        world = make_world(flags, settings, model, task, env, generator)
    real = RealEnv(env, flags.seed, flags.max_steps)
    if flags.agent == "pets":
        assert world is not None
        assert task is not None
        return Pets(
            real,
            world,
            replay,
            generator,
            partial(_plan, flags, planned_task(task, world.model), generator),
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
    env = make_env(flags.env)
    replay = Replay(len(data), *env_sizes(env), generator.device)
    replay.add(
        Batch(
            data.observation,
            data.action,
            data.reward,
            data.next_observation,
            data.terminated.to(data.reward.dtype),
        )
    )
    world = make_world(flags, settings, model, task, env, generator)
    return _dyna(flags, settings, env, replay, generator, world, None)


def check_memory(
    flags: Flags,
    settings: Mapping[str, Any],
    task: Task,
    model: DynamicsModel | None,
    data: Transitions,
    device: torch.device,
) -> None:
    """Builds what `offline` does, with an untrained model for None, and gives it up again.

    Raises:
        RuntimeError: torch's, where memory is not enough; torch.OutOfMemoryError on a GPU.
    """
    generator = torch.Generator(device)
    if model is None:
        with torch.device(device):
            sizes = data.observation.shape[1], data.action.shape[1]
            model = untrained_model(flags, task, *sizes, generator)
    offline(flags, settings, task, model, data, generator)


def _dyna(
    flags: Flags,
    settings: Mapping[str, Any],
    env: gymnasium.Env,
    replay: Replay,
    generator: torch.Generator,
    world: World | None,
    real: RealEnv | None,
) -> Dyna:
    return Dyna(
        _sac(flags, settings, env, generator),
        replay,
        generator,
        env=real,
        world=world,
        start_steps=settings.get("start_steps", 0),
        imitate_steps=settings.get("imitate_steps", 0),
        refit_every=settings.get("refit_every", 1),
        imagine_every=settings.get("imagine_every", 1),
        updates_per_step=settings["updates_per_step"],
        real_ratio=settings["real_ratio"],
        recent_starts=settings.get("recent_starts", 0.0),
        multi_step=settings.get("multi_step", False),
        termination_cost=settings["termination_cost"],
        reward_scale=settings["reward_scale"],
        metadata={
            "env_id": flags.env.id,
            "env": json.dumps(flags.env.to_plain()),
            "policy": "trained",
            "algorithm": flags.agent,
        },
    )


def _sac(
    flags: Flags, settings: Mapping[str, Any], env: gymnasium.Env, generator: torch.Generator
) -> SAC:
    box = action_box(env)
    return SAC(
        env_sizes(env)[0],
        torch.as_tensor(box.low, dtype=torch.float32, device=generator.device),
        torch.as_tensor(box.high, dtype=torch.float32, device=generator.device),
        generator,
        hidden=flags.policy_hidden,
        learning_rate=flags.policy_learning_rate,
        actor_learning_rate=settings["actor_learning_rate"],
        averaging_rate=settings["averaging_rate"],
        discount=settings["discount"],
        temperature=settings["reward_scale"] * settings["temperature"],
        target_entropy=settings["target_entropy"],
        layer_norm=settings["layer_norm"],
        soft_values=not settings.get("multi_step", False),
        value_weight=settings.get("value_weight", 0.0),
    )


def _plan(flags: Flags, task: Task, generator: torch.Generator, model: DynamicsModel) -> Any:
    settings = planner_settings(flags.env.id, flags.planner)
    env = make_env(flags.env)  # of its own: the terminal value resets it
    try:
        return mpc_agent(model, env, task, flags.planner, settings, generator)
    finally:
        env.close()
