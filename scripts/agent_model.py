"""The model of an agent that learns: made, fitted again and again, and imagined with."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.agents.world import BLOCK, LengthSchedule, World
from mbrl_bilevel.data.transitions import Transitions, split_by_episode
from mbrl_bilevel.envs.task_check import reward_disagreement, termination_disagreement
from mbrl_bilevel.envs.tasks import Task, planned_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.objectives.bilevel import Bilevel
from mbrl_bilevel.objectives.build import build
from mbrl_bilevel.objectives.spec import ObjectiveSpec, needs_two_means
from mbrl_bilevel.objectives.two_means import TwoMeanRegression
from mbrl_bilevel.scripts.acting_environment import GO_ON, REMEDY
from mbrl_bilevel.scripts.agent_flags import Flags
from mbrl_bilevel.scripts.first_fit import HELD_OUT
from mbrl_bilevel.training.fit import fit
from mbrl_bilevel.training.trainer import Samples

TOO_FEW_STEPS = f"{BLOCK} steps in a row stand for an episode here: take more --start-steps"


def untrained_model(
    flags: Flags, task: Task, obs_dim: int, act_dim: int, generator: torch.Generator | None
) -> DynamicsModel:
    """An untrained model for a task, by the flags; without a generator for its sizes alone."""
    return DynamicsModel(
        obs_dim,
        act_dim,
        learn_reward=flags.learn_reward == "yes" or task.reward is None,
        members=flags.members,
        hidden=flags.hidden,
        two_means=needs_two_means(flags.objective, "diagonal"),
        env_spec=replace(flags.env, id=flags.env.name),
        observation_names=task.observation_names,
        generator=generator,
    )


def make_world(
    flags: Flags,
    settings: Mapping[str, Any],
    model: DynamicsModel,
    task: Task,
    env: gymnasium.Env,
    generator: torch.Generator,
) -> World:
    """The model with its fits and its rollouts, for an agent that acts in `env`."""
    observation_space = env.observation_space
    assert isinstance(observation_space, Box)
    fitted = partial(refit, flags.objective, flags.elites, settings["model_steps"], generator)
    if flags.agent != "mopo" and not flags.unchecked_task:
        fitted = partial(_checked_refit, task, settings["start_steps"], fitted)
    return World(
        model,
        planned_task(task, model),
        fitted,
        generator,
        observation_space=observation_space,
        action_space=action_box(env),
        rollouts=settings.get("rollouts", 1),
        length=LengthSchedule(*settings.get("rollout_length", ())),
        penalty=settings.get("penalty", "none"),
        penalty_weight=settings.get("penalty_weight", 0.0),
    )


def refit(
    objective: ObjectiveSpec,
    elites: int | None,
    steps: int,
    generator: torch.Generator,
    model: DynamicsModel,
    data: Transitions,
) -> dict[str, float]:
    """Goes on fitting a model, by any objective, to data that have grown."""
    train, held_out = split_by_episode(
        data, (1 - HELD_OUT, HELD_OUT), generator, remedy=TOO_FEW_STEPS
    )
    model.fit_standardizers(train)
    held = Samples(*model.encode(held_out))
    goal = build(objective, model, train, held_out, steps=steps, generator=generator)
    if isinstance(goal, Bilevel) and isinstance(goal.inner, TwoMeanRegression):
        goal.inner.adopt(model.network)
    result = fit(
        model.network,
        goal,
        Samples(*model.encode(train)),
        held,
        generator=generator,
        steps=steps,
        learning_rate=1e-3,
        weight_decay=1e-5,
        schedule="constant",
        patience=None,
        evaluate_every=max(1, steps // 4),
        progress=False,
    )
    model.elites = torch.tensor(result.order[:elites], device=generator.device)
    return {
        "held_out_nll": sum(result.nll) / len(result.nll),
        "held_out_mse": sum(result.mse) / len(result.mse),
    }


def _checked_refit(
    task: Task,
    start_steps: int,
    fit_again: Callable[[DynamicsModel, Transitions], dict[str, float]],
    model: DynamicsModel,
    data: Transitions,
) -> dict[str, float]:
    """`fit_again`, before whose first time the task is held against the random steps.

    Raises:
        InputError: the environment pays, or ends, otherwise than the task.
    """
    if len(data) <= start_steps:
        wrong, remedy = termination_disagreement(task, data), GO_ON
        if wrong is None and not model.learn_reward:
            wrong, remedy = reward_disagreement(task, data), REMEDY
        if wrong is not None:
            raise InputError(f"the random steps in the environment hold {wrong}; {remedy}")
    return fit_again(model, data)


def env_sizes(env: gymnasium.Env) -> tuple[int, int]:
    """Dimensions of observation and action."""
    assert env.observation_space.shape is not None
    return env.observation_space.shape[0], action_box(env).shape[0]


def action_box(env: gymnasium.Env) -> Box:
    """The box of the actions, which every agent here has."""
    assert isinstance(env.action_space, Box)
    return env.action_space
