"""What is on record of the environment that data come from, as plain data and never as code."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mbrl_bilevel.files import harmless, parse_json

DEEPEST = 4  # lists and mappings inside each other, in an argument
MOST = 10_000  # plain values of a whole spec
NO_LIMIT = -1  # as in gymnasium.make


@dataclass(frozen=True)
class WrapperSpec:
    """A wrapper by its class name, or by module:Class where it is none of gymnasium's own.

    `kwargs` are plain values, or None where the wrapper kept no record of them.
    """

    name: str
    kwargs: dict[str, Any] | None = field(default_factory=dict)

    def __post_init__(self) -> None:
        _name(self.name)
        if self.kwargs is not None:
            object.__setattr__(self, "kwargs", _arguments(self.kwargs))

    def __str__(self) -> str:
        return f"{self.name}({_listed(self.kwargs or {})})"

    def to_plain(self) -> dict[str, Any]:
        """The same as a mapping that JSON and YAML can hold."""
        return {
            "name": self.name,
            "kwargs": None if self.kwargs is None else _arguments(self.kwargs),
        }


@dataclass(frozen=True)
class EnvSpec:
    """An environment by its id, the arguments it was made with, its wrappers and its time limit.

    Wrappers stand in the order of their application, innermost first; those that
    `gymnasium.make` itself applies are not among them. `max_episode_steps` is that of
    `gymnasium.make`: None leaves the limit that is registered for the id, -1 is no limit. Sequences
    are lists, so that specs that say the same are equal.

    Raises:
        ValueError: a name that is not printable, an argument that is no plain value, or too many.
    """

    id: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    wrappers: tuple[WrapperSpec, ...] = ()
    max_episode_steps: int | None = None

    def __post_init__(self) -> None:
        _name(self.id)
        _limit(self.max_episode_steps)
        object.__setattr__(self, "kwargs", _arguments(self.kwargs))
        values = _count(self.kwargs) + sum(1 + _count(w.kwargs) for w in self.wrappers)
        if values > MOST:
            raise ValueError(f"an environment has {values} values among its arguments")

    def __str__(self) -> str:
        text = f"{self.name}({_listed(self.kwargs)})" if self.kwargs else self.name
        return " in ".join([text, *map(str, self.wrappers)])

    @property
    def name(self) -> str:
        """The id without a module that registers it, as in "my_module:MyCart-v0"."""
        return self.id.rpartition(":")[2]

    def to_plain(self) -> dict[str, Any]:
        """The same as a mapping that JSON and YAML can hold."""
        return {
            "id": self.id,
            "kwargs": _arguments(self.kwargs),
            "wrappers": [wrapper.to_plain() for wrapper in self.wrappers],
            "max_episode_steps": self.max_episode_steps,
        }

    @classmethod
    def from_plain(cls, value: Any) -> "EnvSpec":
        """The spec that `to_plain` wrote down; ValueError for anything else, in one line."""
        keys = {"id", "kwargs", "wrappers", "max_episode_steps"}
        if not isinstance(value, Mapping) or set(value) != keys:
            raise ValueError(f"an environment is described by {', '.join(sorted(keys))}")
        wrappers = value["wrappers"]
        if not isinstance(wrappers, list) or not all(
            isinstance(one, Mapping) and set(one) == {"name", "kwargs"} for one in wrappers
        ):
            raise ValueError("wrappers are described by name and kwargs")
        made = tuple(_wrapper(one["name"], one["kwargs"]) for one in wrappers)
        limit = value["max_episode_steps"]
        return cls(_name(value["id"]), _arguments(value["kwargs"]), made, _limit(limit))

    @classmethod
    def from_gymnasium(cls, text: str) -> "EnvSpec":
        """The spec of `gymnasium.envs.registration.EnvSpec.to_json`; nothing of it is imported.

        Raises:
            ValueError: it is no such JSON, in one line.
        """
        value = parse_json(text)
        if not isinstance(value, Mapping) or "id" not in value:
            raise ValueError("it names no environment")
        wrappers = value.get("additional_wrappers") or ()
        if not isinstance(wrappers, (list, tuple)):
            raise ValueError("its wrappers are no list")
        limit = value.get("max_episode_steps")
        return cls(
            _name(value["id"]),
            _without_rendering(_arguments(value.get("kwargs") or {})),
            tuple(map(_gymnasium_wrapper, wrappers)),
            NO_LIMIT if limit is None else _limit(limit),
        )


# What only drawing depends on is no part of what an environment is.
RENDERING = (
    *("render_mode", "width", "height", "camera_id", "camera_name", "default_camera_config"),
    *("max_geom", "visual_options"),
)


def _without_rendering(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in RENDERING}


def _gymnasium_wrapper(value: Any) -> WrapperSpec:
    if not isinstance(value, Mapping) or "name" not in value:
        raise ValueError("one of its wrappers has no name")
    entry = str(value.get("entry_point"))
    known = entry.startswith("gymnasium.wrappers.")
    return _wrapper(value["name"] if known else entry, value.get("kwargs"))


def _wrapper(name: Any, kwargs: Any) -> WrapperSpec:
    return WrapperSpec(_name(name), None if kwargs is None else _arguments(kwargs))


def _name(value: Any) -> str:
    if not harmless(value):
        raise ValueError(f"an environment or a wrapper is called {str(value)[:60]!r}")
    return str(value)


def _limit(value: Any) -> int | None:
    if value is None or (type(value) is int and (value > 0 or value == NO_LIMIT)):
        return value
    raise ValueError(f"max_episode_steps is {str(value)[:60]!r}")


def _arguments(kwargs: Any) -> dict[str, Any]:
    """A copy of arguments in plain values; ValueError where they are not."""
    if not isinstance(kwargs, Mapping) or not all(map(harmless, kwargs)):
        raise ValueError("arguments go by printable names")
    return {name: _plain(value, name) for name, value in kwargs.items()}


def _plain(value: Any, name: str, depth: int = 0) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if depth > DEEPEST:
        raise ValueError(f"the argument {name} is nested more than {DEEPEST} deep")
    if isinstance(value, (list, tuple)) and len(value) <= MOST:
        return [_plain(part, name, depth + 1) for part in value]
    if isinstance(value, Mapping) and all(map(harmless, value)) and len(value) <= MOST:
        return {key: _plain(part, name, depth + 1) for key, part in value.items()}
    whole = value is None or isinstance(value, bool) or harmless(value)
    number = type(value) in (int, float) and not math.isnan(value) and abs(value) < math.inf
    if whole or number or value in (math.inf, -math.inf):
        return value
    raise ValueError(f"the argument {name} is {str(value)[:60]!r}, no plain value")


def _count(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_count, value))
    if isinstance(value, dict):
        return sum(1 + _count(part) for part in value.values())
    return 1


def _listed(kwargs: Mapping[str, Any]) -> str:
    shown = (f"{name}={value!r}" for name, value in kwargs.items())
    return ", ".join(text if len(text) <= 60 else f"{text[:57]}..." for text in shown)
