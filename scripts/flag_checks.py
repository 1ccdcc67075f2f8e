"""Checks that flags of several commands share, before any work."""

import errno
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.settings import OBJECTIVES, OuterSettings
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.products import Precision


def refuse_twice(name: str, values: Iterable[Any]) -> None:
    """InputError for a value that a list holds more than once."""
    for value, times in Counter(values).most_common(1):
        if times > 1:
            raise InputError(f"{name} names {value} twice: name it once")


def refuse_rounded_outer_level(precision: Precision, objective: ObjectiveSpec | None) -> None:
    """InputError for products in bfloat16 under an outer level.

    Linear systems of curvature products and differences of losses lose more by rounding than
    gradients do, and nobody has measured how much.
    """
    if precision == "bf16" and isinstance(objective, OuterSettings):
        raise InputError(
            f"--precision bf16 --objective {OBJECTIVES.name(objective)}: its outer level needs "
            "float32 products; leave --precision out"
        )


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
