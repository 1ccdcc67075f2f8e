"""From a command line to values: what was given, and what help says of the rest."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import tyro

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import Count
from mbrl_bilevel.scripts.flags.group import Flag, Group, group_of
from mbrl_bilevel.scripts.flags.parse import built, parse_flat, parse_groups


@dataclass(frozen=True, kw_only=True)
class Benchmarks:
    """Benchmarks."""

    names: Annotated[tuple[Literal["load", "fit"], ...], tyro.conf.Positional] = ("load", "fit")
    """Which."""
    rounds: Count = 7
    """Rounds."""


@dataclass(frozen=True, kw_only=True)
class Fruit:
    """What grows."""

    kind: str
    """Its name."""
    sizes: tuple[Count, ...] = (1, 2)
    """Widths, of which one that is longer than a line of the terminal has in it is told in
    several."""
    ripe: bool = False
    """Eat now."""
    price: float | None = None
    """Default: a gift."""
    threads: Count = 1
    """Hands."""


TAIL = Group("Tails.", (Flag("lengths", tuple[int, int], "Long.", (1, 2), remark=", or so"),))
GROUPS = {"fruit": group_of(Fruit), "tail": TAIL}


def helped(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        parse_groups(GROUPS, words, "grow", "Grows.", {"fruit": GROUPS["fruit"]})
    assert end.value.code == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_only_what_is_given_is_there_and_switches() -> None:
    assert parse_groups(GROUPS, ["--kind", "fig"], "grow", "") == {
        "fruit": {"kind": "fig", "ripe": False},
        "tail": {},
    }
    line = "--kind fig --sizes 3 4 5 --ripe --price 2 --lengths 7 8"
    assert parse_groups(GROUPS, line.split(), "grow", "") == {
        "fruit": {"kind": "fig", "ripe": True, "sizes": (3, 4, 5), "price": 2.0},
        "tail": {"lengths": (7, 8)},
    }


def test_booleans_with_a_default_of_an_instance_take_a_value() -> None:
    groups = {"fruit": group_of(Fruit(kind="fig", ripe=True))}
    assert parse_groups(groups, ["--ripe", "False"], "grow", "") == {"fruit": {"ripe": False}}
    assert parse_groups(groups, [], "grow", "") == {"fruit": {}}


def test_what_is_built_has_the_defaults_of_the_class_and_is_checked() -> None:
    assert built(Fruit, {"kind": "fig", "price": None}) == Fruit(kind="fig")
    with pytest.raises(InputError, match="--threads 0: choose at least 1"):
        built(Fruit, {"kind": "fig", "threads": 0})
    assert parse_flat(Fruit, ["--kind=fig", "--sizes", "3"], "grow", "") == Fruit(
        kind="fig", sizes=(3,)
    )
    with pytest.raises(InputError, match="--size is no flag of grow: did you mean --sizes"):
        parse_flat(Fruit, ["--size", "3"], "grow", "")


def test_help_tells_defaults_and_leaves_seldom_flags_and_other_groups_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = helped(capsys, "--help")
    for part in (
        "Grows. Seldom needed flags are left out here; --help-all shows them too.",
        "--kind STR Its name. (required)",
        "--sizes INT [INT ...] Widths,",
        "has in it is told in several. (default: 1 2)",
        "--ripe Eat now. --price FLOAT Default: a gift.",
    ):
        assert part in text
    assert "--threads" not in text
    assert "--lengths" not in text
    assert "(default: None)" not in text
    assert "--threads INT Hands. (default: 1)" in helped(capsys, "--help-all")


def test_help_tells_how_many_values_a_flag_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_groups({"tail": TAIL}, ["--help"], "grow", "Grows.")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--lengths INT INT Long. (default: 1 2, or so)" in text


def test_words_before_all_flags_are_those_of_the_positional_flag() -> None:
    assert parse_flat(Benchmarks, ["fit", "load", "--rounds", "3"], "b", "") == Benchmarks(
        names=("fit", "load"), rounds=3
    )
    assert parse_flat(Benchmarks, ["--rounds", "3", "fit"], "b", "").names == ("fit",)
    assert parse_flat(Benchmarks, [], "b", "") == Benchmarks()
    with pytest.raises(InputError, match=r"^'fits': choose from load, fit$"):
        parse_flat(Benchmarks, ["load", "fits"], "b", "")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Evaluation."""

    model: tuple[str, ...]
    """Which."""


def test_a_flag_of_several_values_that_is_missing_is_asked_for() -> None:
    assert parse_flat(Evaluation, ["--model", "a", "b"], "e", "") == Evaluation(model=("a", "b"))
    with pytest.raises(InputError, match=r"^--model is required$"):
        parse_flat(Evaluation, [], "e", "")
