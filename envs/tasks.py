"""What is known of each task besides its dynamics: reward, termination and names.

A task of your own, with an environment registered in gymnasium, takes a few lines:

    import torch
    from mbrl_bilevel.envs.tasks import Task, register_task

    def reward(obs, act, next_obs):
        return -next_obs[..., 0].abs() - 0.01 * act.square().sum(-1)

    def terminated(next_obs):
        return next_obs[..., 0].abs() > 5.0

    register_task(Task("MyCart-v0", reward, terminated, observation_names=("x", "vel_x")))

Both functions take batches of tensors of any leading shape, in the environment's own units, and
return one value for each; `reward=None` leaves the reward to the model. The terminations here judge
float32 observations as well as float64 ones: a value within float32 rounding of a threshold could
be judged otherwise, but none was in 128,000 real steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl_bilevel.envs import locomotion, manipulation, pendulum
from mbrl_bilevel.envs.termination import non_finite
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.protocols import RewardFunction

REFERENCE_STEPS = 1_000  # of the episodes whose returns the reference scores are
TerminationFunction = Callable[[Float[Tensor, "*s o"]], Bool[Tensor, "*s"]]


@dataclass(frozen=True)
class Task:
    """A task by its functions of observations (`mbrl_bilevel.protocols.Task`).

    `observation_names` has one name for each dimension; those of velocities begin with "vel_".
    `reference_scores` are the returns of a random and of an expert policy over 1,000 steps, the 0
    and 100 of a normalised score (D4RL, Fu et al. 2020, measured in the v2 tasks), or None.
    """

    env_id: str
    reward: RewardFunction | None
    terminated: TerminationFunction
    observation_names: tuple[str, ...]
    reference_scores: tuple[float, float] | None = None


TASKS: dict[str, Task] = {
    task.env_id: task
    for task in (
        Task(
            "HalfCheetah-v5",
            locomotion.half_cheetah_reward,
            non_finite,
            locomotion.HALF_CHEETAH_NAMES,
            reference_scores=(-280.178953, 12135.0),
        ),
        Task(
            "Hopper-v5",
            locomotion.hopper_reward,
            locomotion.hopper_terminated,
            locomotion.HOPPER_NAMES,
            reference_scores=(-20.272305, 3234.3),
        ),
        Task(
            "Walker2d-v5",
            locomotion.walker2d_reward,
            locomotion.walker2d_terminated,
            locomotion.WALKER2D_NAMES,
            reference_scores=(1.629008, 4592.3),
        ),
        Task(
            "Ant-v5",
            locomotion.ant_reward,
            locomotion.ant_terminated,
            locomotion.ANT_NAMES,
        ),
        Task(
            "Swimmer-v5",
            locomotion.swimmer_reward,
            non_finite,
            locomotion.SWIMMER_NAMES,
        ),
        Task(
            "Reacher-v5",
            manipulation.reacher_reward,
            non_finite,
            manipulation.REACHER_NAMES,
        ),
        Task(
            "Pusher-v5",
            manipulation.pusher_reward,
            non_finite,
            manipulation.PUSHER_NAMES,
        ),
        Task(
            "InvertedPendulum-v5",
            pendulum.inverted_pendulum_reward,
            pendulum.inverted_pendulum_terminated,
            pendulum.INVERTED_PENDULUM_NAMES,
        ),
        Task(
            "InvertedDoublePendulum-v5",
            pendulum.inverted_double_pendulum_reward,
            pendulum.inverted_double_pendulum_terminated,
            pendulum.INVERTED_DOUBLE_PENDULUM_NAMES,
        ),
        Task(
            "Pendulum-v1",
            pendulum.pendulum_reward,
            non_finite,
            pendulum.PENDULUM_NAMES,
        ),
    )
}


def get_task(env_id: str) -> Task:
    """The task of an environment id such as "Hopper-v5".

    A module that registers the environment, as in "my_module:MyCart-v0", is no part of the name;
    `gymnasium.make` imports it.

    Raises:
        InputError: no task of that id is registered.
    """
    name = env_id.rpartition(":")[2]
    if name not in TASKS:
        raise InputError(
            f"no task for environment {env_id!r}; known are {', '.join(TASKS)}: choose one of "
            "them or add your own with mbrl_bilevel.envs.tasks.register_task"
        )
    return TASKS[name]


def reference_scores(
    env: gymnasium.Env, max_steps: int | None = None
) -> tuple[float, float] | None:
    """The scores that returns in `env` may be held against; None where there are none.

    They are returns of episodes of up to 1,000 steps in the plain task: to episodes that
    `max_steps` cuts, another time limit, other arguments of the environment or wrappers around it
    they say nothing.
    """
    spec = env.spec
    task = TASKS.get(spec.id) if spec is not None else None
    if spec is None or task is None:
        return None
    arguments = {name for name in spec.kwargs if name != "render_mode"}
    shortened = max_steps is not None and max_steps < REFERENCE_STEPS
    if shortened or arguments or spec.additional_wrappers:
        return None
    return task.reference_scores if spec.max_episode_steps == REFERENCE_STEPS else None


def register_task(task: Task, *, replace: bool = False) -> None:
    """Makes `get_task(task.env_id)` find `task`.

    Raises:
        InputError: the id is taken and `replace` is False.
    """
    if task.env_id in TASKS and not replace:
        raise InputError(
            f"a task for environment {task.env_id!r} is registered already; pass replace=True to "
            "put yours in its place"
        )
    TASKS[task.env_id] = task
