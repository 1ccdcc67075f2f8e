"""What registering a name refuses, and when a builder is imported."""

from dataclasses import dataclass

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.registry import Registry


@dataclass(frozen=True)
class Plain:
    """Settings."""


@dataclass(frozen=True)
class Other(Plain):
    """Settings derived from others are settings of their own."""


def test_a_builder_belongs_to_the_class_of_its_settings():
    known: Registry[Plain] = Registry("thing")
    known.register("plain", Plain, lambda settings: "plain")
    known.register("other", Other, "math:sqrt")
    assert known.names == ("plain", "other")
    assert known.settings("other") is Other
    assert known.name(Other()) == "other"
    assert known.builder(Plain())(Plain()) == "plain"
    assert known.builder(Other())(9.0) == 3.0
    known.unregister("other")
    with pytest.raises(InputError, match="Other are no settings of any thing: choose Plain"):
        known.builder(Other())


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("plain", Other, "'plain' is registered already"),
        ("my-thing", Other, "choose a name of letters"),
        ("other", Plain, "are the settings of 'plain'"),
        ("other", int, "no dataclass"),
    ],
)
def test_what_cannot_be_registered(name, settings, words):
    known: Registry[Plain] = Registry("thing")
    known.register("plain", Plain, lambda settings: None)
    with pytest.raises(InputError, match=words):
        known.register(name, settings, lambda settings: None)
    assert known.names == ("plain",)


def test_a_name_that_is_none_is_refused_with_those_there_are():
    known: Registry[Plain] = Registry("thing")
    known.register("plain", Plain, lambda settings: None)
    with pytest.raises(InputError, match="no thing 'plane': choose one of plain"):
        known.settings("plane")
