"""Flags out of dataclasses of settings: each None unless it is given, so that presets can apply."""

import ast
import inspect
import textwrap
from collections.abc import Collection, Iterable
from dataclasses import fields, make_dataclass
from itertools import pairwise
from typing import Annotated, Any, get_type_hints

import tyro


def optional(name: str, description: str, settings: Iterable[type], names: Collection[str]) -> type:
    """A dataclass of the fields of `settings` in `names`, each None by default.

    The text below a field in the source is its help, to which the field's own default is added. A
    name that several of them have is one flag, described as in the first.
    """
    found: dict[str, Any] = {}
    for kind in settings:
        hints, texts = get_type_hints(kind, include_extras=True), field_texts(kind)
        for field in fields(kind):
            if field.name in names and field.name not in found:
                default = "" if field.default is None else f"(default: {field.default}, or by task)"
                text = texts.get(field.name, "")
                argument = tyro.conf.arg(help=text, help_behavior_hint=default)
                hint: Any = hints[field.name]
                hint = Annotated[hint | None, argument]
                found[field.name] = (field.name, hint, None)
    made = make_dataclass(name, found.values(), frozen=True, kw_only=True)
    made.__doc__ = description
    return made


def field_texts(settings: type) -> dict[str, str]:
    """The text that stands below each field of a dataclass, in its source or that of its bases."""
    texts: dict[str, str] = {}
    for kind in reversed(settings.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in pairwise(tree.body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                texts[field.target.id] = " ".join(str(below.value.value).split())
    return texts
