"""Warnings as one line each on stderr, under a progress bar and in processes that play episodes."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Warnings meanwhile are one line each, which leaves a progress bar whole.

    None is said twice, by a command that another one runs either: both look at the same data.
    """
    if isinstance(warnings.showwarning, SayOnce):
        yield
        return
    with warnings.catch_warnings():
        warnings.showwarning = SayOnce()
        yield


class SayOnce:
    """In place of `warnings.showwarning`: each sentence once, on a line of its own."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Writes the sentence, unless it was written before."""
        if str(message) not in self.said:
            self.said.add(str(message))
            tqdm.write(f"warning: {message}", file=sys.stderr)
