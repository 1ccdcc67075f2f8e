"""From the words of a command line to settings: one group of flags per dataclass, shown as such.

tyro parses and prints; what is here decides which groups there are, and says in one sentence which
flag stands where it has no meaning.
"""

import contextlib
import difflib
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, make_dataclass
from itertools import zip_longest
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

from mbrl_bilevel.agents.setting_groups import RolloutLength
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import check_ranges, choices, flag

Config = TypeVar("Config")

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
HELP = ("-h", "--help")
HELP_ALL = "--help-all"

primitives = tyro.constructors.ConstructorRegistry()


@primitives.primitive_rule
def _rollout_length(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[RolloutLength] | None:
    """Four numbers, as the field's docstring names them."""
    if info.type is not RolloutLength:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=4,
        metavar="INT INT INT INT",
        instance_from_str=lambda words: RolloutLength(*map(int, words)),
        is_instance=lambda value: isinstance(value, RolloutLength),
        str_from_instance=lambda value: [str(getattr(value, f.name)) for f in fields(value)],
    )


def parse_flat(config: type[Config], argv: Sequence[str], command: str, summary: str) -> Config:
    """The settings of a command whose flags are one dataclass.

    Raises:
        InputError: an unknown flag, or a value out of range. SystemExit: tyro's own, with code 0
            after help or 2 for what it cannot read.
    """
    refuse_unknown(command, argv, hints_of(config))
    found: Config = parsed(command, config, argv, summary)
    check_ranges(found)
    return found


def parsed(command: str, flags: Any, argv: Sequence[str], summary: str | None = None) -> Any:
    """The instance of a dataclass, or of one of groups, that a command line gives.

    Raises:
        InputError: what settings refuse. SystemExit: as of `parse_flat`.
    """
    with _one_sentence(), primitives:
        return tyro.cli(
            flags,
            prog=f"mbrl-bilevel {command}",
            args=list(argv),
            description=summary,
            config=(
                tyro.conf.FlagCreatePairsOff,
                tyro.conf.OmitArgPrefixes,
                tyro.conf.DisallowNone,
            ),
        )


def parse_groups(
    groups: Mapping[str, Any], argv: Sequence[str], command: str, summary: str
) -> dict[str, Any]:
    """An instance of every group of flags; a group is a dataclass, or an instance with defaults.

    Flags are named by their fields alone. Booleans of groups that are given as instances take
    True or False; those of classes are switches.

    Raises:
        InputError, SystemExit: as of `parse_flat`.
    """
    known = {name: hint for group in groups.values() for name, hint in hints_of(group).items()}
    refuse_unknown(command, argv, known)
    words, hidden = help_words(argv)
    if hidden & set(known):
        summary += f"\n\nSeldom needed flags are left out here; {HELP_ALL} shows them too."
    entries: list[Any] = []
    for name, group in groups.items():
        if isinstance(group, type):
            entries.append((name, without(group, hidden)))
        else:
            kind = without(type(group), hidden, group)
            default = kind(**{f.name: getattr(group, f.name) for f in fields(group)})
            entries.append((name, Annotated[kind, tyro.conf.FlagConversionOff], default))
    flags = make_dataclass("Flags", entries, frozen=True, kw_only=True)
    found = parsed(command, flags, words, summary)
    made = {name: getattr(found, name) for name in groups}
    for group in made.values():
        check_ranges(group)
    return made


def help_words(argv: Sequence[str]) -> tuple[list[str], frozenset[str]]:
    """A command line with `--help` for `--help-all`, and the flags that its help leaves out."""
    words = ["--help" if word == HELP_ALL else word for word in argv]
    return words, SELDOM if is_help(argv) and HELP_ALL not in argv else frozenset[str]()


def without(kind: type[Any], hidden: frozenset[str], default: Any = None) -> type[Any]:
    """The same dataclass with these fields kept from the eyes of `--help`."""
    names = {f.name for f in fields(kind)} & hidden
    if not names:
        return kind
    hints = get_type_hints(kind, include_extras=True)
    body: dict[str, Any] = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    suppress: Any = tyro.conf.Suppress
    body["__annotations__"] = {name: suppress[hints[name]] for name in names}
    body |= {f.name: f.default for f in fields(kind) if f.name in names}
    if default is not None:
        body |= {name: getattr(default, name) for name in names}
    return dataclass(frozen=True, kw_only=True)(type(kind.__name__, (kind,), body))


def hints_of(group: Any) -> dict[str, Any]:
    """The annotation of every flag of a group, by its name."""
    kind = group if isinstance(group, type) else type(group)
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in fields(kind)}


def is_group(value: Any) -> bool:
    """Whether a setting is itself a group of settings, rather than the value of a flag."""
    return is_dataclass(value) and not isinstance(value, RolloutLength)


def values_of(name: str, argv: Sequence[str]) -> list[str]:
    """What follows the last `--name` of a command line; nothing where it is not there."""
    values: list[str] = []
    inside = False
    for word in argv:
        if word.startswith("--"):
            given, has_value, value = word.partition("=")
            inside = given.replace("_", "-") == flag(name)
            values = ([value] if has_value else []) if inside else values
        elif inside:
            values.append(word)
    return values


def value_of(name: str, argv: Sequence[str]) -> str | None:
    """The one value of a flag; None where it has none."""
    return next(iter(values_of(name, argv)), None)


def is_help(argv: Sequence[str]) -> bool:
    return any(word in (*HELP, HELP_ALL) for word in argv)


def named(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every flag on the command line by its field's name, with the word that follows it."""
    for word, following in zip_longest(argv, argv[1:], fillvalue=""):
        if word.startswith("--") and word != "--" and word not in (*HELP, HELP_ALL):
            key, equals, value = word.removeprefix("--").partition("=")
            follows = "" if following.startswith("--") else following
            yield key.replace("-", "_"), value if equals else follows


def refuse_unknown(command: str, argv: Sequence[str], known: Mapping[str, Any]) -> None:
    """Refuses flags that are not among the names of `known`, and words that its hints exclude.

    Raises:
        InputError: the first of them.
    """
    for name, value in named(argv):
        if name not in known and name.removeprefix("no_") not in known:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {flag(near[0])}?" if near else "leave it out;"
            raise InputError(
                f"{flag(name)} is no flag of {command}: {remedy} `mbrl-bilevel {command} --help` "
                "lists all"
            )
        words = choices(known.get(name))
        if value and words and value not in words:
            raise InputError(f"{flag(name)} {value}: choose one of {', '.join(words)}")


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    """Settings check themselves where tyro builds them: their sentence, instead of tyro's box."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except SystemExit as left:
        error: BaseException | None = left
        while error is not None and not isinstance(error, InputError):
            error = error.__context__
        if error is not None:
            raise error from None
        sys.stderr.write(printed.getvalue())
        raise
    sys.stderr.write(printed.getvalue())
