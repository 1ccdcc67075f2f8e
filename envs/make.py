"""Gymnasium environments with flat continuous spaces, made quietly."""

import difflib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import mujoco
from gymnasium import spaces

from mbrl_bilevel.errors import InputError


@contextmanager
def quiet_mujoco() -> Iterator[None]:
    """Drops MuJoCo's deprecation warning about `settotalmass` (HalfCheetah's model) meanwhile.

    MuJoCo writes it to the process's stderr and to MUJOCO_LOG.TXT each time the model is compiled,
    and no user can mend it. Every other warning goes to stderr or to the handler set before;
    errors are exceptions and pass.
    """
    previous = mujoco.get_mju_user_warning()

    def handler(message: str) -> None:
        if "'settotalmass' is deprecated" in message:
            return
        if previous is not None:
            previous(message)
        else:
            print(f"mujoco: {message}", file=sys.stderr, flush=True)

    mujoco.set_mju_user_warning(handler)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)


def make_env(env_id: str, **kwargs: Any) -> gymnasium.Env:
    """`gymnasium.make(env_id, **kwargs)` for an environment that this toolkit can use.

    Raises:
        InputError: the id is unknown (close ones are named), the environment cannot be made here,
            or its observations or actions are not flat boxes of numbers.
    """
    try:
        with quiet_mujoco():
            env = gymnasium.make(env_id, **kwargs)
    except gymnasium.error.UnregisteredEnv as error:
        raise InputError(f"unknown environment {env_id!r}; {_suggestion(env_id)}") from error
    except (gymnasium.error.Error, ImportError, OSError) as error:
        raise InputError(f"environment {env_id!r} cannot be made: {error}") from error
    except TypeError as error:
        if not kwargs:
            raise
        raise InputError(f"environment {env_id!r} does not take {kwargs}: {error}") from error
    complaint = _complaint(env)
    if complaint is not None:
        env.close()
        raise InputError(f"environment {env_id!r} has {complaint}")
    return env


def _suggestion(env_id: str) -> str:
    close = difflib.get_close_matches(env_id, list(gymnasium.registry), n=3)
    if close:
        return f"did you mean {' or '.join(repr(name) for name in close)}?"
    return "gymnasium.pprint_registry() lists the ids there are"


def _complaint(env: gymnasium.Env) -> str | None:
    observation, action = env.observation_space, env.action_space
    if isinstance(observation, spaces.Box) and len(observation.shape) >= 2:
        return (
            f"image observations {list(observation.shape)}; "
            "only flat (Box, 1-D) observations are supported"
        )
    if not isinstance(observation, spaces.Box) or len(observation.shape) != 1:
        return f"observations {observation}; only flat (Box, 1-D) observations are supported"
    if not isinstance(action, spaces.Box) or len(action.shape) != 1:
        return f"actions {action}; only flat continuous (Box, 1-D) actions are supported"
    return None
