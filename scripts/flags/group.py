"""A dataclass of settings as a group of flags, one for each field.

A flag has the field's name, the type of its annotation, the text below it as help, and its default,
or that of an instance where one is given.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, fields, replace
from functools import cache
from itertools import pairwise
from typing import Any, get_type_hints

from mbrl_bilevel.agents.presets import is_group
from mbrl_bilevel.agents.setting_groups import RolloutLength


@dataclass(frozen=True)
class Flag:
    """One flag: its default is MISSING where it must be given; a `switch` takes no value."""

    name: str
    hint: Any
    text: str
    default: Any
    switch: bool = False
    remark: str = ""
    """What help says behind the default."""


@dataclass(frozen=True)
class Group:
    """Flags under one heading of `--help`, and the text below the heading."""

    text: str
    flags: tuple[Flag, ...]

    @property
    def hints(self) -> dict[str, Any]:
        """The type of every flag by its name."""
        return {flag.name: flag.hint for flag in self.flags}

    def after(self, *first: Flag) -> "Group":
        """The group with other flags before its own."""
        return replace(self, flags=(*first, *self.flags))


def group_of(settings: Any) -> Group:
    """The flags of a dataclass, whose booleans are switches, or of an instance, whose are not.

    Fields that are groups themselves are left out.
    """
    kind = settings if isinstance(settings, type) else type(settings)
    return Group(" ".join((kind.__doc__ or "").split()), tuple(_flags(kind, settings)))


def _flags(kind: type[Any], settings: Any) -> Iterator[Flag]:
    hints, texts = get_type_hints(kind, include_extras=True), field_texts(kind)
    for field in fields(kind):
        default: Any = field.default if kind is settings else getattr(settings, field.name)
        if is_group(default):
            continue
        hint, text = hints[field.name], texts.get(field.name, "")
        if hint is RolloutLength:
            hint, default = tuple[int, int, int, int], astuple(default)
        yield Flag(field.name, hint, text, default, switch=hint is bool and kind is settings)


def field_texts(settings: type) -> dict[str, str]:
    """The text that stands below each field of a dataclass, in its source or that of its bases."""
    texts: dict[str, str] = {}
    for kind in reversed(settings.__mro__[:-1]):
        with suppress(OSError, TypeError, KeyError):  # no source, as of a class typed in
            texts |= _texts_in(kind.__module__).get(kind.__qualname__, {})
    return texts


@cache
def _texts_in(module: str) -> dict[str, dict[str, str]]:
    """Of every class in the source of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return dict(_classes(tree.body, ""))


def _classes(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield f"{prefix}{node.name}", dict(_texts(node.body))
            yield from _classes(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield from _classes(node.body, f"{prefix}{node.name}.<locals>.")


def _texts(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            yield field.target.id, " ".join(str(below.value.value).split())
