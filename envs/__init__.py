"""Where agents act: environments, real and learned, and what is known of their tasks."""

from typing import TYPE_CHECKING

from mbrl_bilevel.lazy_names import lazy_names

if TYPE_CHECKING:
    from mbrl_bilevel.envs.learned_single_env import LearnedEnv as LearnedEnv
    from mbrl_bilevel.envs.learned_single_env import learned_env as learned_env
    from mbrl_bilevel.envs.learned_vector_env import LearnedVectorEnv as LearnedVectorEnv
    from mbrl_bilevel.envs.make import make_env as make_env
    from mbrl_bilevel.envs.mujoco_simulator import MujocoSimulator as MujocoSimulator
    from mbrl_bilevel.envs.simulator import Simulator as Simulator
    from mbrl_bilevel.envs.task import Task as Task
    from mbrl_bilevel.envs.tasks import find_task as find_task
    from mbrl_bilevel.envs.tasks import get_task as get_task
    from mbrl_bilevel.envs.tasks import planned_task as planned_task
    from mbrl_bilevel.envs.tasks import register_task as register_task
else:
    _MODULES = {
        "learned_single_env": ("LearnedEnv", "learned_env"),
        "learned_vector_env": ("LearnedVectorEnv",),
        "make": ("make_env",),
        "mujoco_simulator": ("MujocoSimulator",),
        "simulator": ("Simulator",),
        "task": ("Task",),
        "tasks": ("find_task", "get_task", "planned_task", "register_task"),
    }
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)

__all__ = [
    "LearnedEnv",
    "LearnedVectorEnv",
    "MujocoSimulator",
    "Simulator",
    "Task",
    "find_task",
    "get_task",
    "learned_env",
    "make_env",
    "planned_task",
    "register_task",
]
