"""Flags out of dataclasses of settings: names, types, texts and defaults."""

from dataclasses import MISSING, dataclass
from typing import Annotated

from mbrl_bilevel.agents.setting_groups import RolloutLength
from mbrl_bilevel.ranges import Range
from mbrl_bilevel.scripts.flags.group import Flag, field_texts, group_of

Apples = Annotated[int, Range(1, 9)]


@dataclass(frozen=True, kw_only=True)
class Fruit:
    """What
    grows."""

    apples: Apples = 3
    """Apples, as many as
    there are."""
    pears: float | None
    """Pears."""
    plums: int = 1


@dataclass(frozen=True, kw_only=True)
class Basket(Fruit):
    """What is carried."""

    plums: int = 2
    """Plums."""
    apples: Apples = 4


LENGTH = RolloutLength(1, 5, 10, 20)


@dataclass(frozen=True, kw_only=True)
class Cart:
    """Groups and values."""

    full: bool = False
    """No room."""
    length: RolloutLength = LENGTH
    basket: Basket = Basket(pears=None)


def test_texts_are_those_below_the_fields_of_a_class_and_its_bases() -> None:
    assert field_texts(Basket) == {
        "apples": "Apples, as many as there are.",
        "pears": "Pears.",
        "plums": "Plums.",
    }


def test_a_class_that_was_typed_in_has_no_texts() -> None:
    typed = dataclass(type("Typed", (), {"__annotations__": {"x": int}, "x": 1}))
    typed.__module__ = "__no_such_module__"
    assert field_texts(typed) == {}


def test_a_class_gives_its_own_defaults_and_an_instance_its_values() -> None:
    group = group_of(Basket)
    assert group.text == "What is carried."
    assert group_of(Fruit).text == "What grows."
    assert group.flags == (
        Flag("apples", Apples, "Apples, as many as there are.", 4),
        Flag("pears", float | None, "Pears.", MISSING),
        Flag("plums", int, "Plums.", 2),
    )
    defaults = [flag.default for flag in group_of(Basket(pears=0.5, plums=7)).flags]
    assert defaults == [4, 0.5, 7]


def test_booleans_of_classes_are_switches_and_groups_are_no_flags() -> None:
    length = Flag("length", tuple[int, int, int, int], "", (1, 5, 10, 20))
    full = Flag("full", bool, "No room.", False, switch=True)
    assert group_of(Cart).flags == (full, length)
    assert group_of(Cart()).flags == (Flag("full", bool, "No room.", False), length)


def test_flags_can_stand_before_those_of_a_group() -> None:
    first = Flag("name", str, "", "x")
    assert list(group_of(Fruit).after(first).hints) == ["name", "apples", "pears", "plums"]
