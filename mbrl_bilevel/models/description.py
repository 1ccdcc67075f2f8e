"""What a model's description may say, checked before anything is built by it."""

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

from torch import Tensor

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.files import harmless
from mbrl_bilevel.models.settings import NetworkKind

Check = Callable[[Any], bool]

# Which came later than the first models, or went.
OPTIONAL = ("gated", "kind", "env", "action_box", "noise", "layer_norm", "dropout")


def check_description(description: Any, weights: Mapping[str, Tensor]) -> None:
    """Holds the description of a `DynamicsModel` against the weights that stand beside it.

    No size can exceed the count of the weights' numbers, so what is built takes no more memory
    than the file of weights.

    Raises:
        ValueError: it says what no model does, in one line.
    """
    if not isinstance(description, Mapping):
        raise ValueError("it is no mapping")
    allowed = _checks(description, weights)
    missing = [name for name in allowed if name not in description and name not in OPTIONAL]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}: it has been cut short")
    for name, check in allowed.items():
        if name in description and not check(description[name]):
            raise ValueError(f"{name} is {repr(description[name])[:60]}")
    env = description.get("env")
    if env is not None and env["id"] != description["env_id"]:
        raise ValueError(f"env_id is {description['env_id']!r}, env says {env['id']!r}")
    unknown = [repr(name)[:60] for name in description if name not in allowed]
    if unknown:
        raise ValueError(f"it has {', '.join(unknown[:3])}, which no model has")


def _checks(description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Check]:
    """Every entry that a description may have, and what its value must be."""
    numbers = sum(w.numel() for w in weights.values())

    def size(value: Any) -> bool:
        return type(value) is int and 1 <= value <= numbers

    def sizes(value: Any) -> bool:
        return isinstance(value, list) and len(value) <= len(weights) and all(map(size, value))

    def names(value: Any) -> bool:
        return isinstance(value, list) and all(map(harmless, value))

    return {
        "obs_dim": size,
        "act_dim": size,
        "learn_reward": _flag,
        "members": size,
        "hidden": sizes,
        "covariance": lambda value: value in ("diagonal", "full"),
        "gated": _flag,
        "kind": lambda value: value in get_args(NetworkKind),
        "log_std_bounds": _bounds,
        "noise": lambda value: value in ("input", "constant"),
        "layer_norm": _flag,
        "dropout": lambda value: type(value) in (int, float) and 0 <= value < 1,
        "elites": size,
        "env_id": lambda value: value is None or harmless(value),
        "env": _env,
        "observation_names": names,
        "action_box": lambda value: value is None or _box(value, description["act_dim"]),
    }


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _env(value: Any) -> bool:
    try:
        return value is None or EnvSpec.from_plain(value) is not None
    except ValueError:
        return False


def _box(value: Any, dims: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(bound, list) and len(bound) == dims for bound in value)
        and all(type(v) in (int, float) and not math.isnan(v) for bound in value for v in bound)
    )


def _bounds(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(v, (int, float)) and math.isfinite(v) for v in value)
    )
