"""What the words of a command line name, before they are parsed."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import choices, flag

HELP, HELP_ALL = ("-h", "--help"), "--help-all"


def is_help(argv: Sequence[str]) -> bool:
    return any(word in (*HELP, HELP_ALL) for word in argv)


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


def named(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every flag on the command line by its field's name, with the word that follows it."""
    for word, following in zip_longest(argv, argv[1:], fillvalue=""):
        if word.startswith("--") and word != "--" and word not in (*HELP, HELP_ALL):
            key, equals, value = word.removeprefix("--").partition("=")
            follows = "" if following.startswith("--") else following
            yield key.replace("-", "_"), value if equals else follows


def refuse_unknown(command: str, argv: Sequence[str], known: Mapping[str, Any]) -> None:
    """Refuses flags that are not among the names of `known`, and words that its types exclude.

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
