"""From a command line to the values of flags; tyro reads the words and prints the help."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, make_dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import tyro

from mbrl_bilevel.ranges import check_ranges, choices
from mbrl_bilevel.scripts.flags.group import Flag, Group, group_of
from mbrl_bilevel.scripts.flags.words import HELP_ALL, is_help, refuse_unknown

Settings = TypeVar("Settings")

# Left out of --help where there are many flags, and shown by --help-all.
SELDOM = frozenset(
    {
        *("threads", "checkpoint_seconds", "unchecked_task", "log_every", "learn_reward"),
        *("model_learning_rate", "model_weight_decay", "model_schedule", "model_evaluations"),
        *("model_held_out", "imagined_rounds", "recent_states", "policy_batch_size"),
        *("scale_temperature", "entropy_in_values", "target_rate", "actor_learning_rate"),
        *("averaging_rate", "termination_cost", "reward_scale", "first_model_steps"),
        *("model_batch_size", "model_resampling", "layer_norm", "dropout", "noise"),
        *("first_updates_per_step", "critic_updates", "detached_every", "detached_rounds"),
        *("critic_dropout", "critics", "target_entropy", "critic_layer_norm", "plugin"),
    }
)


def parse_flat(kind: type[Settings], argv: Sequence[str], command: str, summary: str) -> Settings:
    """The settings of a command whose flags are one dataclass.

    Raises:
        InputError: an unknown flag, or a value out of range. SystemExit: tyro's own, with code 0
            after help or 2 for what it cannot read.
    """
    group = group_of(kind)
    refuse_unknown(command, argv, group.hints)
    return built(kind, vars(_parsed(command, _tyro_class(group), argv, summary)))


def parse_groups(
    groups: Mapping[str, Group],
    argv: Sequence[str],
    command: str,
    summary: str,
    shown: Mapping[str, Group] | None = None,
) -> dict[str, dict[str, Any]]:
    """The values that a command line gives, by group and name; what is not given is not there.

    `shown` are the groups that help shows, if not all.

    Raises:
        InputError: an unknown flag. SystemExit: as of `parse_flat`.
    """
    known = {name: hint for group in groups.values() for name, hint in group.hints.items()}
    refuse_unknown(command, argv, known)
    hidden = SELDOM if is_help(argv) and HELP_ALL not in argv else frozenset[str]()
    if hidden & set(known):
        summary += f"\n\nSeldom needed flags are left out here; {HELP_ALL} shows them too."
    if is_help(argv) and shown is not None:
        groups = shown
    flags = make_dataclass(
        "Flags",
        [
            (name, _tyro_class(group, hidden), field(metadata={"help": group.text}))
            for name, group in groups.items()
        ],
        kw_only=True,
    )
    words = ["--help" if word == HELP_ALL else word for word in argv]
    found = _parsed(command, flags, words, summary)
    return {
        name: {k: v for k, v in vars(getattr(found, name)).items() if v is not None}
        for name in groups
    }


def built(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Settings out of the values that were given, in their ranges."""
    made = kind(**{name: value for name, value in given.items() if value is not None})
    check_ranges(made)
    return made


def _parsed(command: str, flags: Any, words: Sequence[str], summary: str) -> Any:
    return tyro.cli(
        flags,
        prog=f"mbrl-bilevel {command}",
        args=list(words),
        description=summary,
        config=(
            tyro.conf.FlagCreatePairsOff,
            tyro.conf.OmitArgPrefixes,
            tyro.conf.DisallowNone,
        ),
    )


def _tyro_class(group: Group, hidden: frozenset[str] = frozenset()) -> type[Any]:
    """A dataclass as tyro reads it: every field is None unless it is given, or a switch."""
    made = make_dataclass(
        "Flags",
        [(f.name, _hint(f, f.name in hidden), *_default(f)) for f in group.flags],
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = group.text
    return made


def _hint(flag: Flag, hidden: bool) -> Any:
    texts = tyro.conf.arg(
        help=flag.text, help_behavior_hint=_shown(flag), metavar=_values(flag.hint)
    )
    hint: Any = flag.hint
    if not (flag.switch or flag.default is MISSING or _is_positional(flag)):
        hint = Union[None, hint]  # noqa: UP007 (of a | b tyro imports typeguard, which takes long)
    marks: list[Any] = [texts]
    if not flag.switch:
        marks.append(tyro.conf.FlagConversionOff)
    if hidden:
        marks.append(tyro.conf.Suppress)
    return Annotated[hint, *marks]


def _values(hint: Any) -> str | None:
    """How help writes the values of a flag that takes several; None leaves that to tyro."""
    for kind in (hint, *get_args(hint)):
        if get_origin(kind) is tuple:
            first, *others = get_args(kind)
            if words := choices(first):
                return f"{{{','.join(words)}}} ..."
            word = _bare(first).__name__.upper()
            return (
                f"{word} [{word} ...]"
                if others == [...]
                else " ".join([word, *[word] * len(others)])
            )
    return None


def _bare(hint: Any) -> type:
    bare: type = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return bare


def _default(flag: Flag) -> tuple[Any, ...]:
    if flag.default is MISSING:
        return ()
    return (flag.default if flag.switch or _is_positional(flag) else None,)


def _is_positional(flag: Flag) -> bool:
    return tyro.conf.Positional in getattr(flag.hint, "__metadata__", ())


def _shown(flag: Flag) -> str:
    """The default, as help shows it; where it is None, the text says what that means."""
    if flag.default is MISSING:
        return "(required)"
    if flag.switch or flag.default is None or flag.default == ():
        return ""
    values = flag.default if isinstance(flag.default, tuple) else (flag.default,)
    return f"(default: {' '.join(map(str, values))}{flag.remark})"
