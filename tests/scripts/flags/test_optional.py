from dataclasses import dataclass, fields
from typing import Annotated

import pytest
import tyro

from mbrl_bilevel.ranges import Range
from mbrl_bilevel.scripts.flags.optional import field_texts, optional


@dataclass(frozen=True, kw_only=True)
class Fruit:
    """What grows."""

    apples: Annotated[int, Range(1, 9)] = 3
    """Apples, as many as
    there are."""
    pears: float | None = None
    """Pears."""
    plums: int = 1


@dataclass(frozen=True, kw_only=True)
class Basket(Fruit):
    """What is carried."""

    plums: int = 2
    """Plums."""
    apples: Annotated[int, Range(1, 9)] = 4


def test_texts_are_those_below_the_fields_of_a_class_and_its_bases() -> None:
    assert field_texts(Basket) == {
        "apples": "Apples, as many as there are.",
        "pears": "Pears.",
        "plums": "Plums.",
    }


def test_optional_fields_are_none_unless_they_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    flags = optional("Flags", "All of them.", [Fruit, Basket], {"apples", "pears"})
    assert [field.name for field in fields(flags)] == ["apples", "pears"]
    assert vars(tyro.cli(flags, args=[])) == {"apples": None, "pears": None}
    assert vars(tyro.cli(flags, args=["--apples", "5"])) == {"apples": 5, "pears": None}
    with pytest.raises(SystemExit):
        tyro.cli(flags, args=["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Apples, as many as there are. (default: 3, or by task)" in text
    assert "All of them." in text
