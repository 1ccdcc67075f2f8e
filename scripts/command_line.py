"""Command lines: what they name, and flags that there are none of."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any

import tyro

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import flag


def parsed(command: str, flags: type, argv: Sequence[str]) -> Any:
    """The instance of a dataclass of groups that a command line gives; groups have no prefix.

    Raises:
        SystemExit: a value of another type, with 2; --help, with 0.
    """
    return tyro.cli(
        flags,
        prog=f"mbrl-bilevel {command}",
        args=argv,
        config=(
            tyro.conf.FlagCreatePairsOff,
            tyro.conf.OmitArgPrefixes,
            tyro.conf.DisallowNone,
        ),
    )


def refuse_unknown(command: str, argv: Sequence[str], names: Collection[str]) -> None:
    """InputError for the first flag of a command line that is not among `names`."""
    known = ["--help", *map(flag, names)]
    for argument in argv:
        given = argument.partition("=")[0].replace("_", "-")
        if given.startswith("--") and given not in known:
            close = get_close_matches(given, known, n=1)
            remedy = f"did you mean {close[0]}?" if close else "leave it out"
            raise InputError(
                f"{given} is no flag of {command}: {remedy} `mbrl-bilevel {command} --help` lists "
                "all"
            )


def values_of(name: str, argv: Sequence[str]) -> list[str]:
    """What follows the last `--name` of a command line; nothing where it is not there."""
    values: list[str] = []
    inside = False
    for argument in argv:
        if argument.startswith("--"):
            given, has_value, value = argument.partition("=")
            inside = given.replace("_", "-") == flag(name)
            values = ([value] if has_value else []) if inside else values
        elif inside:
            values.append(argument)
    return values
