"""Flags of several commands."""

from dataclasses import dataclass
from typing import Any, Literal

from mbrl_bilevel.ranges import Seed


@dataclass(frozen=True, kw_only=True)
class Command:
    """The run and where it is computed."""

    seed: Seed = 0
    """Seed of every random generator, below 2^63; the same seed gives the same result on the same
    machine."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of all tensors; auto: a GPU if there is one."""
    json: bool = False
    """Print one JSON object as the last line on stdout; everything else goes to stderr."""
    plugin: tuple[str, ...] = ()
    """Modules to import first, which register tasks, objectives, planners or agents."""


@dataclass(frozen=True, kw_only=True)
class Computing(Command):
    """The run, where it is computed and how exactly."""

    precision: Literal["float32", "bf16"] = "float32"
    """Matrix products on the CPU: bf16 rounds their factors to bfloat16, 8 bits, where the CPU
    multiplies such numbers: faster, and less exact. Weights and sums stay float32. Objectives with
    an outer level are not trained so."""


def shared_flags(config: Any) -> Command:
    """The flags of every command, of whichever form the settings of this one have."""
    return config if isinstance(config, Command) else config.run
