"""A group of flags as the dataclass that tyro reads and shows."""

from dataclasses import MISSING, make_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import tyro

from mbrl_bilevel.ranges import choices
from mbrl_bilevel.scripts.flags.group import Flag, Group


def tyro_class(group: Group, hidden: frozenset[str] = frozenset()) -> type[Any]:
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
    texts = tyro.conf.arg(help=flag.text, help_behavior_hint=_shown(flag), metavar=_values(flag))
    hint, marks = flag.hint, [texts]
    if is_positional(flag):
        hint = get_args(hint)[0]
        marks.append(tyro.conf.Positional)  # of the whole: inside of a union tyro overlooks it
    # Of a | b, or a tuple that has a default or must be given, tyro imports typeguard: too slow.
    if isinstance(hint, UnionType):
        hint = Union[get_args(hint)]  # noqa: UP007
    if _default(flag) == (None,):
        hint = Union[None, hint]  # noqa: UP007
    if not flag.switch:
        marks.append(tyro.conf.FlagConversionOff)
    if hidden:
        marks.append(tyro.conf.Suppress)
    return Annotated[hint, *marks]


def is_positional(flag: Flag) -> bool:
    """Whether it is given by its value alone."""
    return tyro.conf.Positional in getattr(flag.hint, "__metadata__", ())


def _values(flag: Flag) -> str | None:
    """How help writes the values of a flag that takes several; None leaves that to tyro."""
    for kind in (flag.hint, *get_args(flag.hint)):
        if get_origin(kind) is tuple:
            first, *others = get_args(kind)
            if words := choices(first):
                return f"{{{','.join(words)}}} ..."
            word = (flag.name if is_positional(flag) else _bare(first).__name__).upper()
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
    hint = get_args(flag.hint)[0] if is_positional(flag) else flag.hint
    if flag.default is MISSING and get_origin(hint) is not tuple:
        return ()  # tyro asks for it; for a tuple `parse_flat` does
    return (flag.default if flag.switch else None,)


def _shown(flag: Flag) -> str:
    """The default, as help shows it; where it is None, the text says what that means."""
    if flag.default is MISSING:
        return "(required)"
    if flag.switch or flag.default is None or flag.default == ():
        return ""
    values = flag.default if isinstance(flag.default, tuple) else (flag.default,)
    return f"(default: {' '.join(map(str, values))}{flag.remark})"
