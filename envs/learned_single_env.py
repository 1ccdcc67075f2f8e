"""A learned dynamics model as gymnasium environments: many at once, or one.

    env = learned_env("runs/pendulum", transitions.observation, num_envs=64)
    observations, _ = env.reset(seed=0)
    observations, rewards, terminated, truncated, infos = env.step(env.action_space.sample())

`LearnedEnv(learned_env(..., num_envs=1))` is the same for agents that take a `gymnasium.Env`.
"""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.envs.action_box import require_same_box
from mbrl_bilevel.envs.learned_vector_env import LearnedVectorEnv
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.rebuild import trusted
from mbrl_bilevel.envs.tasks import get_task, planned_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.uncertainty import Penalty


class LearnedEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A single environment: the only one of a `LearnedVectorEnv`, which it takes over.

    Raises:
        InputError: a vector of more than one environment.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, vector: LearnedVectorEnv) -> None:
        if vector.num_envs != 1:
            raise InputError(
                f"a LearnedEnv from {vector.num_envs} environments: make it with num_envs=1"
            )
        self.vector = vector
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A fresh start [o]; options are ignored."""
        super().reset(seed=seed)
        return self.vector.reset(seed=seed)[0][0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Next observation [o], reward, terminated, truncated, and the penalty where one is on."""
        step = self.vector.step_tensors(self.vector.starts.new_tensor(np.asarray(action)[None]))
        info = {"penalty": float(step.penalty)} if self.vector.uncertainty_penalty > 0 else {}
        ended = bool(step.terminated), bool(step.truncated)
        observation = step.next_observation[0].to("cpu", torch.float32, copy=True).numpy()
        return observation, float(step.reward), *ended, info


def learned_env(
    model_folder: Path | str,
    starts: Float[Tensor, "m o"],
    *,
    num_envs: int,
    time_limit: int | None = None,
    uncertainty_penalty: float = 0.0,
    penalty: Penalty = "aleatoric",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> LearnedVectorEnv:
    """The model in a folder as `LearnedVectorEnv` of the environment that it was trained for.

    Task, spaces and (unless given) time limit are those of the real environment, as it stood where
    the data of the model were collected.

    Raises:
        InputError: no model there, or one that does not name an environment with a known task; no
            time limit; and what `LearnedVectorEnv` raises.
    """
    model = DynamicsModel.load(model_folder, device)
    if model.env_spec is None:
        raise InputError(
            f"the model in {model_folder} does not name its environment: "
            "use LearnedVectorEnv with a task and spaces of your own"
        )
    spec = trusted(model.env_spec, f"model in {model_folder}")
    env = make_env(spec)
    observation_space, action_space = env.observation_space, env.action_space
    env.close()
    if time_limit is None:
        time_limit = env.spec.max_episode_steps if env.spec is not None else None
    if time_limit is None:
        raise InputError(f"environment {model.env_id!r} has no time limit: give time_limit")
    assert isinstance(observation_space, Box)
    assert isinstance(action_space, Box)
    require_same_box(model.action_box, action_space, f"model in {model_folder}", str(spec))
    return LearnedVectorEnv(
        model,
        planned_task(get_task(spec), model),
        starts,
        num_envs=num_envs,
        time_limit=time_limit,
        action_space=action_space,
        observation_space=observation_space,
        uncertainty_penalty=uncertainty_penalty,
        penalty=penalty,
        seed=seed,
    )
