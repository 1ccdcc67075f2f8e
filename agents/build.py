"""From an agent's settings to the agent: checked before any work, for library and command line."""

import json
from functools import partial

import torch

from mbrl_bilevel.agents.build_mpc import mpc_in_model
from mbrl_bilevel.agents.checks import Acting, check_agent, task_of, untrained_model
from mbrl_bilevel.agents.cloning import Cloning
from mbrl_bilevel.agents.dhmbpo import DHMBPO
from mbrl_bilevel.agents.learning import Learner
from mbrl_bilevel.agents.mbpo import MBPO
from mbrl_bilevel.agents.mopo import MOPO
from mbrl_bilevel.agents.mpc import MPC
from mbrl_bilevel.agents.pets import PETS
from mbrl_bilevel.agents.planning_settings import mpc_settings
from mbrl_bilevel.agents.real_env import RealEnv
from mbrl_bilevel.agents.sac import SAC
from mbrl_bilevel.agents.settings import (
    AGENTS,
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
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.simulated_transitions import SimulatedTransitions
from mbrl_bilevel.envs.tasks import Task, planned_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel

Named = SACSettings | MBPOSettings | DHMBPOSettings | MOPOSettings | CloningSettings


def make_agent(
    settings: AgentSettings,
    env: str | EnvSpec | Acting,
    *,
    device: torch.device | str = "cpu",
    dataset: Dataset | None = None,
    model: DynamicsModel | None = None,
) -> Learner:
    """The agent of these settings, ready for its first `train_step`.

    `env` is an id or spec, or `Acting` for more than that. MOPO learns from `dataset` in `model`,
    behaviour cloning from `dataset`; the others take neither.

    Raises:
        InputError: what `check_agent` refuses.
    """
    acting = env if isinstance(env, Acting) else Acting(env=_spec(env))
    check_agent(settings, acting, dataset=dataset, model=model)
    make = AGENTS.builder(settings)
    learner: Learner = make(
        settings, acting, device=torch.device(device), dataset=dataset, model=model
    )
    return learner


def offline(
    settings: MOPOSettings,
    acting: Acting,
    *,
    device: torch.device,
    dataset: Dataset | None,
    model: DynamicsModel | None,
) -> MOPO:
    """MOPO; InputError without data set or model."""
    if dataset is None or model is None:
        raise InputError("MOPO learns from a data set, in a model of it: give it both")
    return _mopo(settings, acting, dataset, model, device)


def cloning(
    settings: CloningSettings,
    acting: Acting,
    *,
    device: torch.device,
    dataset: Dataset | None,
    model: DynamicsModel | None,
) -> Cloning:
    """Behaviour cloning; InputError without a data set, or with a model."""
    if dataset is None or model is not None:
        raise InputError("behaviour cloning learns from a data set alone: give it no model")
    return Cloning(
        settings,
        dataset.transitions.to(device),
        _spaces(acting.env),
        torch.Generator(device).manual_seed(acting.seed),
        metadata=_metadata(settings, acting.env),
    )


def online(
    settings: SACSettings | MBPOSettings | DHMBPOSettings | PETSSettings,
    acting: Acting,
    *,
    device: torch.device,
    dataset: Dataset | None,
    model: DynamicsModel | None,
) -> SAC | MBPO | DHMBPO | PETS:
    """Any of the online agents; InputError with a data set or a model."""
    if dataset is not None or model is not None:
        raise InputError(
            f"{settings.name} learns online, and fits a model of its own if any: give it neither "
            "data set nor model"
        )
    return _online(settings, acting, device)


def check_memory(
    settings: MOPOSettings,
    acting: Acting,
    dataset: Dataset,
    model: DynamicsModel | None,
    device: torch.device,
) -> None:
    """Builds what `make_agent` does, with an untrained model for None, and gives it up again.

    Raises:
        RuntimeError: torch's, where memory is not enough; torch.OutOfMemoryError on a GPU.
    """
    if model is None:
        task, spaces = task_of(acting.env), _spaces(acting.env)
        with torch.device(device):
            model = untrained_model(settings, acting.env, task, spaces, torch.Generator(device))
    # Replays are as large from the start as they will ever be.
    _mopo(settings, acting, dataset, model, device)


def _online(
    settings: SACSettings | MBPOSettings | DHMBPOSettings | PETSSettings,
    acting: Acting,
    device: torch.device,
) -> SAC | MBPO | DHMBPO | PETS:
    generator = torch.Generator(device).manual_seed(acting.seed)
    env = make_env(acting.env)
    if isinstance(settings, SACSettings):
        real = RealEnv(env, acting.seed, acting.max_steps)
        return SAC(settings, real, generator, metadata=_metadata(settings, acting.env))
    task = task_of(acting.env)
    # One generator draws the model's weights, then the policy's: a seed decides both.
    with torch.device(device):
        model = untrained_model(settings, acting.env, task, Spaces.of(env), generator)
    real = RealEnv(env, acting.seed, acting.max_steps)
    if isinstance(settings, PETSSettings):
        plan = partial(_plan, settings, acting.env, planned_task(task, model), generator)
        return PETS(settings, real, model, task, generator, plan, check_task=acting.check_task)
    check, metadata = acting.check_task, _metadata(settings, acting.env)
    if isinstance(settings, DHMBPOSettings):
        return DHMBPO(settings, real, model, task, generator, check_task=check, metadata=metadata)
    simulator = None
    if settings.model.model == "simulator":
        simulator = SimulatedTransitions(make_env(acting.env), device)
    return MBPO(
        settings,
        real,
        model,
        task,
        generator,
        simulator=simulator,
        check_task=check,
        metadata=metadata,
    )


def _mopo(
    settings: MOPOSettings,
    acting: Acting,
    dataset: Dataset,
    model: DynamicsModel,
    device: torch.device,
) -> MOPO:
    return MOPO(
        settings,
        dataset.transitions.to(device),
        model,
        task_of(acting.env),
        _spaces(acting.env),
        torch.Generator(device).manual_seed(acting.seed),
        metadata=_metadata(settings, acting.env),
    )


def _plan(
    settings: PETSSettings,
    spec: EnvSpec,
    task: Task,
    generator: torch.Generator,
    model: DynamicsModel,
) -> MPC:
    planning = mpc_settings(spec.id, settings.planner, execute=settings.execute)
    env = make_env(spec)  # of its own: the terminal value resets it
    try:
        return mpc_in_model(model, env, task, planning, generator)
    finally:
        env.close()


def _metadata(settings: Named, spec: EnvSpec) -> dict[str, str]:
    return {
        "env_id": spec.id,
        "env": json.dumps(spec.to_plain()),
        "policy": "trained",
        "algorithm": settings.name,
    }


def _spec(env: str | EnvSpec) -> EnvSpec:
    return EnvSpec(env) if isinstance(env, str) else env


def _spaces(spec: EnvSpec) -> Spaces:
    env = make_env(spec)
    spaces = Spaces.of(env)
    env.close()
    return spaces
