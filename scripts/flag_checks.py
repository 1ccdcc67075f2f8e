"""Checks that flags of several commands share, before any work."""

import errno
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mbrl_bilevel.errors import InputError


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
