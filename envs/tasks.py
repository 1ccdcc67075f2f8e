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
return one value for each; `reward=None` leaves the reward to the model. The terminations here take
float32 observations as well as float64 ones: a value within float32 rounding of a threshold could
come out on its other side, but none did in 128,000 real steps.
"""

import inspect
from dataclasses import replace

import gymnasium

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.rebuild import arguments, effective
from mbrl_bilevel.envs.task import Task as Task
from mbrl_bilevel.envs.task_functions import check_task, check_termination
from mbrl_bilevel.envs.variants import VARIANTS, fits
from mbrl_bilevel.envs.wrapped_task import through_wrappers
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.protocols import TransitionModel

REFERENCE_STEPS = 1_000  # of the episodes whose returns the reference scores are

TASKS: dict[str, Task] = {env_id: make() for env_id, make in VARIANTS.items()}
"""By the id of the environment; of the shipped ones, as made without arguments."""
SHIPPED = dict(TASKS)


def get_task(env: str | EnvSpec) -> Task:
    """The task of an environment, by its id such as "Hopper-v5" or by its spec.

    Arguments and wrappers of a spec decide reward, termination and names of a shipped task. A task
    of your own is taken at its word, whatever the arguments. A module that registers the
    environment, as in "my_module:MyCart-v0", is no part of the name; `gymnasium.make` imports it.

    Raises:
        InputError: no task of that id is registered, or an argument or wrapper of which nothing is
            known.
    """
    spec = EnvSpec(env) if isinstance(env, str) else env
    if spec.name not in TASKS:
        raise InputError(
            f"no task for environment {spec.id!r}; known are {', '.join(TASKS)}: choose one of "
            "them or add your own with mbrl_bilevel.envs.tasks.register_task"
        )
    task = TASKS[spec.name]
    if task is SHIPPED.get(spec.name):
        task = _variant(spec, task)
    if not effective(spec.wrappers):
        return task
    bare = make_env(replace(spec, wrappers=()))
    try:
        return through_wrappers(task, bare, spec)
    finally:
        bare.close()


def find_task(env: str | EnvSpec | None) -> Task | None:
    """`get_task`, or None where nothing is known: then the reward is for the model to learn."""
    try:
        return None if env is None else get_task(env)
    except InputError:
        return None


def planned_task(task: Task, model: TransitionModel) -> Task:
    """The task as agents see it in a model: a reward that the model learned goes before a known.

    Raises:
        InputError: a task without any reward, or with functions that `check_task` refuses.
    """
    if model.learn_reward:
        task = replace(task, reward=None)
    elif task.reward is None:
        raise InputError(
            f"{task.env_id} has no known reward function and the model did not learn one: train it "
            "with --learn-reward yes"
        )
    check_task(task, model.obs_dim, model.act_dim)
    return task


def _variant(spec: EnvSpec, plain: Task) -> Task:
    chosen = arguments(spec)
    if not chosen:
        return plain
    make = VARIANTS[spec.name]
    defaults = {p.name: p.default for p in inspect.signature(make).parameters.values()}
    for name, value in chosen.items():
        if name not in defaults or not fits(value, defaults[name]):
            raise InputError(
                f"no task for environment {spec.id!r} with {name}={str(value)[:60]!r}: what that "
                f"changes is not known here (of {', '.join(defaults)} it is); register a task of "
                "your own with mbrl_bilevel.envs.tasks.register_task(..., replace=True)"
            )
    return make(**chosen)


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
        InputError: the id is taken and `replace` is False, or the termination function does not
            return one value for each state (the reward function is tried when it is first used).
    """
    if task.env_id in TASKS and not replace:
        raise InputError(
            f"a task for environment {task.env_id!r} is registered already; pass replace=True to "
            "put yours in its place"
        )
    if task.observation_names:
        check_termination(task, len(task.observation_names))
    TASKS[task.env_id] = task
