"""The objective that a command line names, and its flags."""

from collections.abc import Sequence
from dataclasses import fields, make_dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.settings import OBJECTIVES, ObjectiveSpec
from mbrl_bilevel.ranges import choices, flag
from mbrl_bilevel.scripts.flags.parse import hints_of, named, value_of


def objective_of(argv: Sequence[str], default: ObjectiveSpec) -> ObjectiveSpec:
    """The objective named by `--objective`, at its own defaults.

    Raises:
        InputError: there is none of that name, or a flag or a word of another objective is given.
    """
    name = value_of("objective", argv)
    spec = default if name is None else OBJECTIVES.settings(name)()
    _refuse_misplaced(spec, argv)
    return spec


def objective_group(spec: ObjectiveSpec) -> Any:
    """The settings of an objective, with the flag that names it."""
    name, kind = OBJECTIVES.name(spec), type(spec)
    text = "What one gradient step minimises; each objective has flags of its own."
    hint = f"(default: {name})"
    chosen = tyro.conf.arg(help=text, help_behavior_hint=hint)
    literal: Any = Literal
    known: Any = literal[OBJECTIVES.names]
    made = make_dataclass(
        kind.__name__,
        [("objective", Annotated[known, chosen], name)],
        bases=(kind,),
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = kind.__doc__
    return made(**{f.name: getattr(spec, f.name) for f in fields(spec)})


def objective_settings(spec: ObjectiveSpec, flags: Any) -> ObjectiveSpec:
    """The settings alone, out of flags that name the objective too."""
    return replace(spec, **{f.name: getattr(flags, f.name) for f in fields(spec)})


def _refuse_misplaced(spec: ObjectiveSpec, argv: Sequence[str]) -> None:
    own, name = hints_of(spec), OBJECTIVES.name(spec)
    others = {n: hints_of(OBJECTIVES.settings(n)) for n in OBJECTIVES.names if n != name}
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
