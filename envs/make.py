"""Gymnasium environments with flat continuous spaces, made quietly."""

import difflib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import mujoco
from gymnasium import spaces
from gymnasium.spaces import Dict
from gymnasium.wrappers import FlattenObservation

from mbrl_bilevel.data.env_spec import EnvSpec, WrapperSpec
from mbrl_bilevel.envs.rebuild import arguments, wrap
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


def make_env(env: str | EnvSpec, **kwargs: Any) -> gymnasium.Env:
    """The environment of an id, as `gymnasium.make(id, **kwargs)`, or of a spec.

    A spec decides arguments, wrappers and time limit; ClipActions around all that changes actions
    are left out, as agents here act within the box that they clip to. Observations in a Dict of
    flat boxes are flattened, by gymnasium's FlattenObservation.

    Raises:
        InputError: the id is unknown (close ones are named), the environment cannot be made here,
            an argument or wrapper of the spec is not taken from a file, or its observations or
            actions are not flat boxes of numbers.
    """
    spec = EnvSpec(env) if isinstance(env, str) else env
    made = _make(spec, kwargs)
    try:
        made = wrap(made, _acting(spec.wrappers), spec.id)
        if isinstance(made.observation_space, Dict) and _flat(made.observation_space):
            made = FlattenObservation(made)
        complaint = _complaint(made)
        if complaint is not None:
            raise InputError(f"environment {spec.id!r} has {complaint}")
    except InputError:
        made.close()
        raise
    return made


def _make(spec: EnvSpec, kwargs: dict[str, Any]) -> gymnasium.Env:
    env_id, given = spec.id, arguments(spec) | kwargs
    if spec.max_episode_steps is not None:
        given = {"max_episode_steps": spec.max_episode_steps} | given
    try:
        with quiet_mujoco():
            return gymnasium.make(env_id, **given)
    except gymnasium.error.UnregisteredEnv as error:
        raise InputError(f"unknown environment {env_id!r}; {_suggestion(env_id)}") from error
    except (gymnasium.error.Error, ImportError, OSError) as error:
        raise InputError(f"environment {env_id!r} cannot be made: {error}") from error
    except (TypeError, ValueError) as error:
        if not given:
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"environment {env_id!r} does not take {given}: {reason}") from error


def _acting(wrappers: Sequence[WrapperSpec]) -> list[WrapperSpec]:
    """Wrappers without each ClipAction that nothing else that changes actions stands around."""
    kept = list(wrappers)
    changing = [i for i, w in enumerate(kept) if w.name in ("ClipAction", "RescaleAction")]
    while changing and kept[changing[-1]] == WrapperSpec("ClipAction"):
        del kept[changing.pop()]
    return kept


def _flat(space: spaces.Space) -> bool:
    """Whether it is a flat Box, or a Dict of such, however deep."""
    if isinstance(space, Dict):
        return len(space.spaces) > 0 and all(map(_flat, space.spaces.values()))
    return isinstance(space, spaces.Box) and len(space.shape) == 1


def flat_names(env: gymnasium.Env) -> tuple[str, ...] | None:
    """Names of flattened observations, as of a data set's; None where nothing is flattened."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, FlattenObservation) and isinstance(env.env.observation_space, Dict):
            return tuple(_leaves(env.env.observation_space, ""))
        env = env.env
    return None


def _leaves(space: spaces.Space, path: str) -> Iterator[str]:
    if isinstance(space, Dict):
        for key, part in space.spaces.items():
            yield from _leaves(part, f"{path}/{key}" if path else str(key))
    else:
        yield from (f"{path}[{i}]" for i in range((space.shape or (0,))[0]))


def _suggestion(env_id: str) -> str:
    close = difflib.get_close_matches(env_id, list(gymnasium.registry), n=3)
    if close:
        return f"did you mean {' or '.join(repr(name) for name in close)}?"
    return (
        "gymnasium.pprint_registry() lists the ids there are; one that a module of yours registers "
        f"is named by --env my_module:{env_id}"
    )


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
    for what, space in (("observations", observation), ("actions", action)):
        if space.shape == (0,):
            return f"{what} without a dimension; there is nothing to learn"
    return None
