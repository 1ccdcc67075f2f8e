"""Flags of demo."""

from dataclasses import dataclass
from pathlib import Path

from mbrl_bilevel.scripts.flags.shared import Command


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of demo."""

    out: Path | None = None
    """New folder for all files; default: the first free one of runs/demo-1, demo-2, ..."""
