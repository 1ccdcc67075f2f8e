"""Settings measured by task, and the replacement of settings by their names."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from mbrl_bilevel.agents.setting_groups import RolloutLength
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.ranges import flag

Settings = TypeVar("Settings")

# Hopper falls when the policy exploits values that the model is wrong about.
OFFLINE_HOPPER: dict[str, Any] = {
    "steps": 30_000,
    "imitate_steps": 20_000,
    "real_ratio": 0.8,
    "critic_layer_norm": True,
    "value_weight": 0.15,
    "termination_cost": 500.0,
    "averaging_rate": 1e-3,
}

PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("mbpo", "InvertedPendulum-v5"): {"steps": 5_000, "start_steps": 500, "model_steps": 500},
    # A leap that ends in a fall is worth more than standing for ever: at a discount of 0.99 twice
    # as much. No one of these settings was measured apart from the others.
    ("mbpo", "Hopper-v5"): {
        "rollout_length": RolloutLength(5, 15, 2_000, 8_000),
        "temperature": 0.2,
        "actor_learning_rate": 1e-4,
        "discount": 0.995,
        "termination_cost": 700.0,
        "reward_scale": 0.05,
    },
    ("mopo", "Hopper-v5"): OFFLINE_HOPPER,
    # Weights of the penalty as published (Sun et al. 2023, table 5).
    ("mobile", "Hopper-v5"): OFFLINE_HOPPER | {"penalty_weight": 1.5},
    ("mobile", "HalfCheetah-v5"): {"penalty_weight": 0.5},
}


def preset(settings_class: type[Settings], env_id: str) -> Settings:
    """The settings of an agent for a task: its defaults, and what was measured for the task."""
    settings = settings_class()
    return updated(settings, **PRESETS.get((_agent(settings), env_id), {}))


def updated(settings: Settings, **by_name: Any) -> Settings:
    """`settings` with some of them replaced, whichever group they stand in.

    `objective` is a registered name or settings of one; names of its own settings go with it.

    Raises:
        InputError: a setting that there is none of, or a value that is not allowed.
    """
    start, rest = settings, dict(by_name)
    # First: it decides which settings of an objective there are.
    if "objective" in rest and hasattr(settings, "objective"):
        start = replace(settings, objective=_objective(rest.pop("objective")))  # type: ignore[type-var]
    known = by_name_of(start)
    for name, value in rest.items():
        if name not in known:
            raise InputError(
                f"{flag(name)} {value} is no setting of {_agent(settings)}: leave it out, or "
                f"choose among {', '.join(map(flag, known))}"
            )
    changed = _replaced(start, rest)
    values = by_name_of(changed)
    # A default weight may stand beside a penalty that was switched off; one that is asked for not.
    if by_name.get("penalty_weight") and values.get("penalty") == "none":
        raise InputError(
            f"--penalty-weight {values['penalty_weight']} of no penalty: choose one by --penalty"
        )
    return changed


def _objective(given: str | ObjectiveSpec) -> ObjectiveSpec:
    return OBJECTIVES.settings(given)() if isinstance(given, str) else given


def by_name_of(settings: Any) -> dict[str, Any]:
    """Every setting by its name, those of groups included, in the order of their definition."""
    return dict(_items(settings))


def _items(settings: Any) -> Iterator[tuple[str, Any]]:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_group(value):
            yield from _items(value)
        else:
            yield field.name, value


def _replaced(settings: Any, by_name: dict[str, Any]) -> Any:
    """One replacement per group: rules between settings see the new values of all."""
    changes: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_group(value):
            changes[field.name] = _replaced(value, by_name)
        elif field.name in by_name:
            changes[field.name] = by_name[field.name]
    return replace(settings, **changes)


def is_group(value: Any) -> bool:
    """Whether a setting is a group of settings, rather than one value."""
    return is_dataclass(value) and not isinstance(value, RolloutLength)


def _agent(settings: Any) -> str:
    return str(getattr(settings, "name", type(settings).__name__))
