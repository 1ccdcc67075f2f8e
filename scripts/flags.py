"""What the values of flags may be: a range stands beside each number, checked before any work."""

import errno
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

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
Threads = Annotated[int, Range(1, 1024)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]


def _plain(bound: int | float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def check_flags(flags: Any) -> None:
    """Refuses the first flag of a command's dataclass whose number lies outside its `Range`.

    Raises:
        InputError: that flag, its value and what to choose.
    """
    hints = get_type_hints(type(flags), include_extras=True)
    for field in fields(flags):
        allowed, given = _range(hints[field.name]), getattr(flags, field.name)
        values = given if isinstance(given, tuple) else (given,)
        for value in values:
            if allowed is not None and isinstance(value, (int, float)) and value not in allowed:
                shown = " ".join(map(str, values))
                raise InputError(f"{flag(field.name)} {shown}: choose {allowed.remedy(value)}")


def flag(name: str) -> str:
    """How a field is written on the command line."""
    return f"--{name.replace('_', '-')}"


def refuse_twice(name: str, values: Iterable[Any]) -> None:
    """InputError for a value that a list holds more than once."""
    for value, times in Counter(values).most_common(1):
        if times > 1:
            raise InputError(f"{name} names {value} twice: name it once")


def make_folder(name: str, folder: Path, *, empty: bool = False) -> None:
    """Makes the folder of a flag before any work, so that the results will have a place.

    Raises:
        InputError: it is a file or cannot be written, or holds something and should be `empty`.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{name} {folder} is a file; choose a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        holds_something = any(folder.iterdir())
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(
            f"{name} {folder} cannot be written ({error.strerror or error}); choose another folder"
        ) from None
    if empty and holds_something:
        raise InputError(
            f"{name} {folder} is not empty and nothing is overwritten; choose a new folder"
        )


def _range(hint: Any) -> Range | None:
    """The first range in an annotation, however deep it lies."""
    if get_origin(hint) is Annotated:
        for mark in hint.__metadata__:
            if isinstance(mark, Range):
                return mark
    found = (_range(argument) for argument in get_args(hint))
    return next((one for one in found if one is not None), None)
