"""Model-predictive control from its settings: in a learned model, or in the simulator."""

import gymnasium
import torch

from mbrl_bilevel.agents.data_support_penalty import with_data_support_penalty
from mbrl_bilevel.agents.mpc import MPC
from mbrl_bilevel.agents.planning_settings import MPCSettings
from mbrl_bilevel.agents.terminal_value import rest_value
from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.planning.score import Scoring
from mbrl_bilevel.planning.settings import PLANNERS
from mbrl_bilevel.protocols import Planner, TrajectoryModel


def mpc_in_model(
    model: DynamicsModel,
    env: gymnasium.Env,
    task: Task,
    settings: MPCSettings,
    generator: torch.Generator,
) -> MPC:
    """MPC with a learned model on the generator's device.

    `env` tells the bounds of actions, and is reset for a terminal value.

    Raises:
        InputError: a number of particles that the propagation cannot have, a data-support penalty
            without a known reward, or a terminal value where there is nothing to balance.
    """
    learned = settings.model
    assert learned is not None
    futures = Propagation(
        model,
        learned.propagation,
        particles=learned.particles,
        disagreement=settings.scoring.disagreement > 0,
    )
    planner = _planner(settings, env, Propagation(model, "mean"), task, generator)
    penalty = learned.data_support_penalty
    seen = with_data_support_penalty(task, model, penalty) if penalty else task
    return MPC(futures, seen, planner, generator, generator.device)


def mpc_in_simulator(
    model: TrajectoryModel,
    env: gymnasium.Env,
    task: Task,
    settings: MPCSettings,
    generator: torch.Generator,
) -> MPC:
    """MPC with the simulation of `env` as the model; InputError as of `mpc_in_model`."""
    return MPC(model, task, _planner(settings, env, model, task, generator), generator)


def _planner(
    settings: MPCSettings,
    env: gymnasium.Env,
    model: TrajectoryModel,
    task: Task,
    generator: torch.Generator,
) -> Planner:
    """A planner within the bounds of the environment's actions."""
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    value = None
    if settings.terminal_value == "rest":
        value = rest_value(env, model, task, generator)
    scoring = Scoring(settings.scoring, terminal_value=value)
    build = PLANNERS.builder(settings.planner)
    planner: Planner = build(space.low, space.high, settings.planner, scoring=scoring)
    return planner
