"""The objective that a command line names, and its flags."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.ranges import choices, flag
from mbrl_bilevel.scripts.flags.group import Flag, Group, group_of
from mbrl_bilevel.scripts.flags.words import named, value_of

TEXT = "What one gradient step minimises; each objective has flags of its own."


def objective_of(argv: Sequence[str], default: ObjectiveSpec) -> ObjectiveSpec:
    """The objective named by `--objective`, at its own defaults.

    Raises:
        InputError: there is none of that name, or a flag or a word of another objective is given.
    """
    name = value_of("objective", argv)
    spec = default if name is None else OBJECTIVES.settings(name)()
    _refuse_misplaced(spec, argv)
    return spec


def objective_group(spec: ObjectiveSpec) -> Group:
    """The flag that names an objective, and the settings of this one."""
    literal: Any = Literal
    choice = Flag("objective", literal[OBJECTIVES.names], TEXT, OBJECTIVES.name(spec))
    return group_of(spec).after(choice)


def objective_settings(spec: ObjectiveSpec, given: Mapping[str, Any]) -> ObjectiveSpec:
    """An objective with the settings that are given; its name among them says nothing new."""
    return replace(spec, **{name: v for name, v in given.items() if name != "objective"})


def _refuse_misplaced(spec: ObjectiveSpec, argv: Sequence[str]) -> None:
    own, name = group_of(spec).hints, OBJECTIVES.name(spec)
    others = {n: group_of(OBJECTIVES.settings(n)).hints for n in OBJECTIVES.names if n != name}
    for given, value in named(argv):
        having = [n for n, hints in others.items() if given in hints]
        if given not in own and having:
            has = f"which has {', '.join(map(flag, own))}" if own else "which has none"
            raise InputError(
                f"{flag(given)} {value} is no setting of objective {name}, {has}: leave it out, or "
                f"choose --objective {' or '.join(having)}"
            )
        words = choices(own.get(given))
        if words and value and value not in words:
            allowing = [n for n in having if value in choices(others[n][given])]
            other = f", or --objective {' or '.join(allowing)}" if allowing else ""
            raise InputError(f"{flag(given)} {value}: choose one of {', '.join(words)}{other}")
