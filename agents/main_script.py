"""Checks of the main script: processes that multiprocessing spawns import it again."""

import multiprocessing
import sys
from pathlib import Path

from mbrl_bilevel.errors import InputError

GUARD = 'if __name__ == "__main__":'
KILLED = "killed, perhaps for want of memory"  # of a process that died


def main_script() -> Path | None:
    """The script that spawned processes import first; None where there is none.

    A module run by `python -m`, an interactive session and `python -c` have none.
    """
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:
        return None
    path = getattr(main, "__file__", None)
    return None if path is None else Path(path)


def check_main_script() -> None:
    """Refuses a main script that spawned processes could not import.

    Raises:
        InputError: it came from standard input, or runs everything again wherever it is read.
    """
    script = main_script()
    if script is None:
        return
    try:
        source = script.read_text(errors="replace")
    except OSError:
        raise InputError(
            f"the script {script} cannot be read by the processes that play episodes: write it to "
            f"a file, with what it runs under `{GUARD}`"
        ) from None
    if "__main__" not in source:
        raise InputError(
            f"the processes that play episodes read {script} again, and would run it again: put "
            f"what it runs under `{GUARD}`"
        )


def why_never_started() -> str:
    """The likely cause where a process ended before it did anything."""
    script = main_script()
    if script is None:
        return KILLED
    return f"{KILLED}, or {script} runs this again when it is read: put it under `{GUARD}`"


def is_being_read_again() -> bool:
    """Whether this is a spawned process that is importing the main script."""
    return bool(getattr(multiprocessing.current_process(), "_inheriting", False))
