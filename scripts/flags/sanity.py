"""Flags of sanity."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mbrl_bilevel.scripts.flags.shared import Command

Name = Literal["gaussian", "horizon", "visited", "classification", "mdp", "two_modes"]


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of sanity; the toy problems are small and run on the CPU, whatever the device."""

    names: Annotated[tuple[Name, ...], tyro.conf.Positional] = ()
    """Which toy problems to check; default: all."""
    out: Path | None = None
    """New or empty folder for checks.json and the training curves of the Gaussian problem."""
