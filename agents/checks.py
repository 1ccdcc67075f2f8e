"""What an agent could not be built of, refused before anything is written or trained."""

import math
from dataclasses import dataclass, replace

import torch

from mbrl_bilevel.agents.refit import check_first_fit, fit_settings
from mbrl_bilevel.agents.settings import (
    AgentSettings,
    CloningSettings,
    DHMBPOSettings,
    MBPOSettings,
    MOPOSettings,
    PETSSettings,
    SACSettings,
)
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.minari import Dataset
from mbrl_bilevel.envs.action_box import require_same_box
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.simulated_transitions import SimulatedTransitions
from mbrl_bilevel.envs.stepping import step_limit
from mbrl_bilevel.envs.task_functions import check_task
from mbrl_bilevel.envs.tasks import TASKS, Task, get_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel

ModelBased = MBPOSettings | DHMBPOSettings | MOPOSettings | PETSSettings

TEN_LINES = """
    import torch
    from mbrl_bilevel.envs.tasks import Task, register_task

    def reward(obs, act, next_obs):
        return -next_obs[..., 0].abs() - 0.01 * act.square().sum(-1)

    def terminated(next_obs):
        return next_obs[..., 0].abs() > 5.0

    register_task(Task("{env_id}", reward, terminated, observation_names=("x", "vel_x")))
"""


@dataclass(frozen=True, kw_only=True)
class Acting:
    """Where an agent acts: its environment, and what decides its episodes."""

    env: EnvSpec
    seed: int = 0
    """Of resets and of everything else random."""
    max_steps: int | None = None
    """Steps after which episodes are truncated; None: as the environment does."""
    check_task: bool = True
    """Whether the task is held against the random steps, before a model learns from them."""


def check_agent(
    settings: AgentSettings,
    acting: Acting,
    *,
    dataset: Dataset | None = None,
    model: DynamicsModel | None = None,
) -> None:
    """Refuses what no agent could be built of, before anything is written or trained.

    `model` is None where one is yet to be trained.

    Raises:
        InputError: episodes without end; no task; bounds of actions, sizes, rates or settings that
            do not go together.
    """
    env = make_env(acting.env)
    step_limit(env, acting.max_steps)
    spaces = Spaces.of(env)
    env.close()
    _check_box(acting.env, spaces)
    if isinstance(settings, SACSettings | MBPOSettings | MOPOSettings | CloningSettings):
        _check_target_entropy(settings.policy.target_entropy, spaces.act_dim)
    if isinstance(settings, ModelBased):
        task = task_of(acting.env)
        check_task(task, spaces.obs_dim, spaces.act_dim)
        _check_model(settings, acting.env, task, spaces, model)
    if dataset is not None:
        _check_dataset(dataset, acting.env, spaces)


def task_of(spec: EnvSpec) -> Task:
    """What imagined steps in an environment need to know: their reward and when they end.

    Raises:
        InputError: no task is registered for it; the sentence says how to.
    """
    env = make_env(spec)  # which may register a task on its import
    name = env.spec.id if env.spec is not None else spec.id
    env.close()
    if name not in TASKS:
        raise InputError(
            f"no task for environment {name!r}, so that nobody knows when an imagined episode "
            "ends: register one where the environment is registered, in ten lines:\n"
            + TEN_LINES.format(env_id=name)
        )
    return get_task(spec)


def untrained_model(
    settings: ModelBased,
    spec: EnvSpec,
    task: Task,
    spaces: Spaces,
    generator: torch.Generator | None,
) -> DynamicsModel:
    """An untrained model of an environment; without a generator for its sizes alone."""
    size = settings.model
    return DynamicsModel(
        spaces.obs_dim,
        spaces.act_dim,
        size,
        learn_reward=size.learn_reward == "yes" or task.reward is None,
        kind=settings.objective.kind,
        env_spec=replace(spec, id=spec.name),
        observation_names=task.observation_names,
        generator=generator,
    )


def _check_box(spec: EnvSpec, spaces: Spaces) -> None:
    box = spaces.action
    if not box.is_bounded():
        raise InputError(f"{spec} has actions {box}; agents here need a bounded box")
    # Policies act in [-1, 1], by (action - centre) / half width: the width must not be 0.
    if (box.low >= box.high).any():
        raise InputError(
            f"{spec} has actions of which dimension {int((box.low >= box.high).argmax())} can "
            "only be one value: leave it out of the action space, by a wrapper"
        )


def _check_target_entropy(target: float | None, act_dim: int) -> None:
    """Refuses more entropy than uniform actions have: the temperature would grow without end."""
    most = act_dim * math.log(2)
    if target is not None and target >= most:
        raise InputError(
            f"--target-entropy {target}: {act_dim} actions in [-1, 1] have less than {most:.3g} "
            "nats, uniform ones; choose less"
        )


def _check_model(
    settings: ModelBased, spec: EnvSpec, task: Task, spaces: Spaces, model: DynamicsModel | None
) -> None:
    """Of the model that the agent will fit, or is given: can it be built, fitted and used?"""
    size = settings.model
    if isinstance(settings, MBPOSettings) and settings.model.model == "simulator":
        _check_simulator(settings, spec)
    elif not isinstance(settings, MOPOSettings):
        held_out = settings.refits.held_out_share(settings.start_steps)
        fit_settings(settings.refits, size.model_steps, settings.start_steps)
        check_first_fit(settings.objective, size.members, held_out, settings.start_steps)
    if model is None:
        with torch.device("meta"):  # nothing is allocated
            untrained_model(settings, spec, task, spaces, None)
    if isinstance(settings, (PETSSettings, DHMBPOSettings)):
        return
    elites = len(model.elites) if model is not None else size.elites or size.members
    penalty = settings.rollout.penalty
    if penalty in ("disagreement", "bellman") and elites < 2:
        raise InputError(f"--penalty {penalty} of one member: keep 2 --members and --elites")
    if settings.rollout.rollout_cut != "none" and elites < 2:
        raise InputError("--rollout-cut of one member: keep 2 --members and --elites")


def _check_simulator(settings: MBPOSettings, spec: EnvSpec) -> None:
    if settings.rollout.penalty != "none":
        raise InputError(
            f"--penalty {settings.rollout.penalty} with --model simulator: only a learned model is "
            "uncertain; choose --penalty none"
        )
    if settings.rollout.rollout_cut != "none":
        raise InputError(
            f"--rollout-cut {settings.rollout.rollout_cut} with --model simulator: only members of "
            "a learned model differ; choose --rollout-cut none"
        )
    env = make_env(spec)
    try:
        SimulatedTransitions(env)
    finally:
        env.close()


def _check_dataset(dataset: Dataset, spec: EnvSpec, spaces: Spaces) -> None:
    data = dataset.transitions
    obs_dim, act_dim = data.observation.shape[1], data.action.shape[1]
    if (obs_dim, act_dim) != (spaces.obs_dim, spaces.act_dim):
        raise InputError(
            f"the data set has {obs_dim} observation and {act_dim} action dimensions, {spec} has "
            f"{spaces.obs_dim} and {spaces.act_dim}: name by --env the environment that it was "
            "collected in"
        )
    require_same_box(dataset.action_box, spaces.action, f"data set {dataset.id}", str(spec))
