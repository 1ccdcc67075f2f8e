"""Model-predictive control from its settings: in a learned model, or in the simulator."""

import gymnasium
import torch

from mbrl_bilevel.agents.data_support_penalty import with_data_support_penalty
from mbrl_bilevel.agents.mpc import MPC
from mbrl_bilevel.agents.planning_settings import MPCSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.agents.terminal_value import rest_value
from mbrl_bilevel.agents.trained_policy import Prior
from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.planning.prior import PolicyPrior
from mbrl_bilevel.planning.score import Scoring, Value
from mbrl_bilevel.planning.settings import PLANNERS
from mbrl_bilevel.protocols import Planner, TrajectoryModel


def mpc_in_model(
    model: DynamicsModel,
    env: gymnasium.Env,
    task: Task,
    settings: MPCSettings,
    generator: torch.Generator,
    *,
    prior: Prior | None = None,
) -> MPC:
    """MPC with a learned model on the generator's device.

    `env` tells the bounds of actions, and is reset for a terminal value. `prior` is the policy that
    `settings.prior` names (`load_prior`).

    Raises:
        InputError: a number of particles that the propagation cannot have, a data-support penalty
            without a known reward, a terminal value where there is nothing to balance or no critic
            of that discount, or a prior that is not the one that is named.
    """
    learned = settings.model
    assert learned is not None
    near = policy_prior(settings, env, prior, generator.device)
    futures = Propagation(
        model,
        learned.propagation,
        particles=learned.particles,
        disagreement=settings.scoring.disagreement > 0,
        prior=near,
    )
    value = _value(settings, env, Propagation(model, "mean"), task, prior, generator)
    penalty = learned.data_support_penalty
    seen = with_data_support_penalty(task, model, penalty) if penalty else task
    planner = _planner(settings, env, value, near)
    return MPC(futures, seen, planner, generator, generator.device, prior=near)


def mpc_in_simulator(
    model: TrajectoryModel,
    env: gymnasium.Env,
    task: Task,
    settings: MPCSettings,
    generator: torch.Generator,
    *,
    prior: Prior | None = None,
) -> MPC:
    """MPC with the simulation of `env` as the model, which follows `policy_prior` if there is one.

    InputError as of `mpc_in_model`.
    """
    near = policy_prior(settings, env, prior, generator.device)
    value = _value(settings, env, model, task, prior, generator)
    return MPC(model, task, _planner(settings, env, value, near), generator, prior=near)


def policy_prior(
    settings: MPCSettings, env: gymnasium.Env, prior: Prior | None, device: torch.device
) -> PolicyPrior | None:
    """What planners draw actions around, in the box of the environment's; None without a prior.

    Raises:
        InputError: `prior` is not the one that the settings name.
    """
    if (None if prior is None else prior.name) != settings.prior:
        raise InputError(
            f"a plan around --prior {settings.prior} needs that policy: give load_prior() of it"
        )
    if prior is None:
        return None
    return PolicyPrior(prior.policy, *Spaces.of(env).action_bounds(device))


def _value(
    settings: MPCSettings,
    env: gymnasium.Env,
    model: TrajectoryModel,
    task: Task,
    prior: Prior | None,
    generator: torch.Generator,
) -> Value | None:
    """What the last imagined state is worth."""
    if settings.terminal_value == "rest":
        return rest_value(env, model, task, generator)
    if settings.terminal_value == "critic":
        assert prior is not None  # as the settings have checked
        return prior.critic(settings.scoring.discount)
    return None


def _planner(
    settings: MPCSettings, env: gymnasium.Env, value: Value | None, prior: PolicyPrior | None
) -> Planner:
    """A planner within the bounds of the environment's actions, or of deviations from a prior."""
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    scoring = Scoring(settings.scoring, terminal_value=value)
    build = PLANNERS.builder(settings.planner)
    if prior is None:
        planner: Planner = build(space.low, space.high, settings.planner, scoring=scoring)
        return planner
    widest = prior.largest_deviation().cpu()
    around: Planner = build(-widest, widest, settings.planner, scoring=scoring)
    return around
