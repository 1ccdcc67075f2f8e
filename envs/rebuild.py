"""An environment made again from what is on record of it, out of gymnasium's own parts alone."""

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.wrappers import (
    ClipAction,
    ClipReward,
    FlattenObservation,
    RescaleAction,
    TimeLimit,
)

from mbrl_bilevel.data.env_spec import RENDERING, EnvSpec, WrapperSpec
from mbrl_bilevel.errors import InputError

REBUILT: dict[str, Callable[..., gymnasium.Env]] = {
    wrapper.__name__: wrapper
    for wrapper in (TimeLimit, RescaleAction, ClipAction, ClipReward, FlattenObservation)
}
# What neither actions nor observations nor rewards depend on, or gymnasium.make applies itself.
PASSIVE = (
    *("PassiveEnvChecker", "OrderEnforcing", "RecordEpisodeStatistics", "RecordVideo"),
    *("HumanRendering", "RenderCollection"),
)
HARMLESS_TEXT = re.compile(r"(?![.])[\w .+-]*")  # no path, and no module to import


def arguments(spec: EnvSpec) -> dict[str, Any]:
    """The arguments of an environment, less those that are its defaults anyway.

    Raises:
        InputError: text among them that may name a file or a module.
    """
    for name, value in spec.kwargs.items():
        if not all(HARMLESS_TEXT.fullmatch(text) for text in _texts(value)):
            raise InputError(
                f"environment {spec.id!r} was made with {name}={str(value)[:60]!r}, which may name "
                "a file or a module: nothing of that kind is opened on the word of a file; "
                "register the environment that it makes under an id of its own and collect there"
            )
    return _chosen(spec)


def _chosen(spec: EnvSpec) -> dict[str, Any]:
    defaults, missing = _defaults(spec), object()
    return {n: v for n, v in spec.kwargs.items() if defaults.get(n, missing) != v}


def effective(wrappers: Sequence[WrapperSpec]) -> tuple[WrapperSpec, ...]:
    """Those wrappers that actions, observations, rewards or the length of episodes depend on."""
    return tuple(wrapper for wrapper in wrappers if wrapper.name not in PASSIVE)


def wrap(env: gymnasium.Env, wrappers: Sequence[WrapperSpec], env_id: str) -> gymnasium.Env:
    """The environment in wrappers made again.

    Raises:
        InputError: one that cannot be, with its name.
    """
    for wrapper in effective(wrappers):
        if wrapper.name not in REBUILT or wrapper.kwargs is None:
            raise InputError(
                f"environment {env_id!r} was wrapped in {wrapper}, which cannot be made again from "
                f"what is on record (but {', '.join(REBUILT)} can): collect data without it, or "
                "register the wrapped environment under an id of its own"
            )
        values = {n: np.array(v) if isinstance(v, list) else v for n, v in wrapper.kwargs.items()}
        try:
            env = REBUILT[wrapper.name](env, **values)
        except Exception as error:  # whatever a wrapper makes of arguments out of a file
            raise InputError(
                f"environment {env_id!r} cannot be wrapped in {wrapper}, as is on record "
                f"({' '.join(str(error).split())[:200]}): collect the data again"
            ) from error
    return env


def same_environment(one: EnvSpec, other: EnvSpec) -> bool:
    """Whether steps of both are the same; time limits and how they are drawn do not count."""
    return (
        one.name == other.name
        and _chosen(one) == _chosen(other)
        and _without_limits(one) == _without_limits(other)
    )


def trusted(spec: EnvSpec, whose: str) -> EnvSpec:
    """The spec, out of a file, of an environment that is registered without importing anything.

    Raises:
        InputError: gymnasium would import a module for its id; `whose` names where it stands.
    """
    if ":" in spec.id:
        raise InputError(
            f"the {whose} names the environment {spec.id!r}, which would import code: "
            "if you trust it, name it by --env"
        )
    return spec


def _without_limits(spec: EnvSpec) -> list[WrapperSpec]:
    passed = ("TimeLimit", "FlattenObservation")  # observations are flattened anyway
    return [wrapper for wrapper in effective(spec.wrappers) if wrapper.name not in passed]


def _defaults(spec: EnvSpec) -> dict[str, Any]:
    """Of the environment's constructor and its registration; none where it is not registered."""
    registered = gymnasium.registry.get(spec.name)
    if registered is None or registered.entry_point is None:
        return {}
    entry = registered.entry_point
    try:
        made = load_env_creator(entry) if isinstance(entry, str) else entry
        parameters = inspect.signature(made).parameters.values()
    except (ImportError, AttributeError, TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    given = {p.name: p.default for p in parameters if p.default is not p.empty}
    given |= registered.kwargs
    plain = {}
    for name, value in given.items():
        try:
            plain[name] = EnvSpec(spec.name, {name: value}).kwargs[name]
        except ValueError:  # no argument out of a file is equal to an object
            continue
    return {name: value for name, value in plain.items() if name not in RENDERING}


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(text for part in value.values() for text in _texts(part))]
    return [text for part in value for text in _texts(part)] if isinstance(value, list) else []
