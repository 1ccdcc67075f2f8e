"""What the values of settings may be, by their annotations: a range, or one of some choices."""

import sys
from dataclasses import dataclass, fields
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mbrl_bilevel.errors import InputError

FINITE = sys.float_info.max


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, which NaN is not; `above` leaves `low` itself out."""

    low: int | float
    high: int | float = FINITE
    above: bool = False

    def __contains__(self, value: int | float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def remedy(self, value: int | float) -> str:
        """What to choose in place of a value that is outside."""
        if value > self.high:
            return "a finite number" if self.high == FINITE else f"at most {_plain(self.high)}"
        words = f"{'above' if self.above else 'at least'} {_plain(self.low)}"
        return f"a number {words}" if self.above else words


# Seeds that torch, numpy and gymnasium take alike; counts up to what a C integer holds.
Seed = Annotated[int, Range(0, 2**63 - 1)]
Count = Annotated[int, Range(1, 2**31 - 1)]
BatchSize = Annotated[int, Range(1, 1_000_000)]  # larger ones are a slip, and fit no memory
Threads = Annotated[int, Range(1, 1024)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]


def _plain(bound: int | float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def check_ranges(settings: Any) -> None:
    """Refuses the first value of a dataclass outside the `Range` or `Literal` in its annotation.

    Raises:
        InputError: that setting, as its flag, its value and what to choose.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    for field in fields(settings):
        allowed, given = _range(hints[field.name]), getattr(settings, field.name)
        values = given if isinstance(given, tuple) else (given,)
        known = choices(hints[field.name])
        if isinstance(given, str) and known and given not in known:
            raise InputError(f"{flag(field.name)} {given}: choose one of {', '.join(known)}")
        for value in values:
            if allowed is not None and isinstance(value, (int, float)) and value not in allowed:
                shown = " ".join(map(str, values))
                raise InputError(f"{flag(field.name)} {shown}: choose {allowed.remedy(value)}")


def flag(name: str) -> str:
    """How a field is written on the command line."""
    return f"--{name.replace('_', '-')}"


def choices(hint: Any) -> tuple[str, ...]:
    """The words that an annotation, or each part of a tuple, allows; () where it allows any."""
    if get_origin(hint) is Literal:
        return tuple(word for word in get_args(hint) if isinstance(word, str))
    if get_origin(hint) in (Annotated, tuple, Union, UnionType):
        inner = get_args(hint)
        if get_origin(hint) in (Annotated, tuple):
            inner = inner[:1]
        if str not in inner:
            return tuple(word for argument in inner for word in choices(argument))
    return ()


def _range(hint: Any) -> Range | None:
    """The first range in an annotation, however deep it lies."""
    if get_origin(hint) is Annotated:
        for mark in hint.__metadata__:
            if isinstance(mark, Range):
                return mark
    found = (_range(argument) for argument in get_args(hint))
    return next((one for one in found if one is not None), None)
