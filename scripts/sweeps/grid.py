"""The product of a stage's axes.

steps: 4000                     a flag of every trial
seed: [0, 1, 2]                 an axis; a list of one value is one too
objective:
  - mse
  - bilevel: {steps: 8000}      flags that belong to this value alone, lists among them
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.sweeps.sweep_file import Stage, normalised


@dataclass(frozen=True)
class Point:
    """One combination of values.

    own: flags of the stage. nested: those that belong to a value, which take precedence. axes: the
    values that tell the point from others. then: stages that follow it.
    """

    own: Stage = field(default_factory=dict)
    nested: dict[str, str] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    then: tuple[Any, ...] = ()

    @property
    def flags(self) -> dict[str, str]:
        """All flags of the point, by name."""
        return self.own | self.nested

    def __add__(self, other: "Point") -> "Point":
        for key in self.nested.keys() & other.nested.keys():
            raise InputError(
                f"{key} is given under a value of two keys ({self.nested[key]} and "
                f"{other.nested[key]}): give it under one"
            )
        return Point(
            self.own | other.own,
            self.nested | other.nested,
            self.axes | other.axes,
            self.then + other.then,
        )


def points(stage: Mapping[str, Any]) -> list[Point]:
    """Every combination of the values of a stage, the last axis fastest.

    Raises:
        InputError: an axis without values, a value that is empty, or a key that is given twice.
    """
    found = [Point()]
    for key, value in normalised(stage).items():
        if key == "then":
            options = [Point(then=tuple(value if isinstance(value, list) else [value]))]
        else:
            options = _options(key, value)
        found = [before + option for before in found for option in options]
    for point in found:
        _refuse_hidden_axes(point, stage)
    return found


def _refuse_hidden_axes(point: Point, stage: Mapping[str, Any]) -> None:
    outer = {key for key, value in normalised(stage).items() if isinstance(value, list)}
    for key in outer & point.nested.keys():
        raise InputError(
            f"{key} is an axis, and is {point.nested[key]} under a value of another key: leave "
            "one of them out"
        )


def _options(key: str, value: Any) -> list[Point]:
    if not isinstance(value, list):
        return _option(key, value)
    if not value:
        raise InputError(f"{key} is an axis without values: give it one, or leave it out")
    found: list[Point] = []
    for one in value:
        found += [Point(axes={key: p.own[key]}) + p for p in _option(key, one)]
    return found


def _option(key: str, value: Any) -> list[Point]:
    """The points of one value: a text, or {text: flags of this value}."""
    if isinstance(value, dict):
        if len(value) != 1 or not all(isinstance(inner, dict) for inner in value.values()):
            raise InputError(
                f"{key} holds a mapping of {', '.join(map(str, value)) or 'nothing'}: a value "
                f"with flags of its own is written {key}: {{VALUE: {{FLAG: ...}}}}"
            )
        ((value, flags),) = value.items()
        inner = points(flags)
    else:
        inner = [Point()]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{key} has an empty value: give it one, or leave it out")
    return [Point({key: value}, p.flags, p.axes, p.then) for p in inner]
