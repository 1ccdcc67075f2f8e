"""What every command shares: its outcome, its device and where its words go."""

import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from mbrl_bilevel.errors import InputError


@dataclass(frozen=True)
class Outcome:
    """What a command found: results for a program (`--json`) and a text for a person."""

    results: dict[str, Any]
    text: str
    exit_code: int = 0


def say(line: str) -> None:
    """A line for the person who watches; never on stdout, which belongs to the outcome."""
    print(line, file=sys.stderr, flush=True)


def run_folder_hint(folder: Path) -> str:
    """A run's folder and the command that shows it, to be pasted into a shell as it is."""
    return f"run folder: {folder}   watch it: tensorboard --logdir {quote(str(folder))}"


def resolve_device(name: str) -> torch.device:
    """The torch device for `--device`.

    Raises:
        InputError: `cuda` was asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here; use --device cpu or auto")
    return torch.device(name)
