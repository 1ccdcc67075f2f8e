"""Flags of collect."""

from dataclasses import dataclass
from typing import Annotated, Literal

from mbrl_bilevel.ranges import Range
from mbrl_bilevel.scripts.flags.shared import Command


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of collect."""

    env: str
    """Environment id, e.g. HalfCheetah-v5."""
    policy: Literal["random", "simple", "medium", "good", "expert"]
    """Behaviour policy; expert is the best one shipped for the environment."""
    steps: Annotated[int, Range(2, 2**31 - 1)]
    """Number of transitions; the last episode is cut there and marked truncated."""
    dataset: str
    """Minari id of the new data set, e.g. mine/halfcheetah-medium-v0."""
    deterministic: bool = False
    """Play the policy's mean action instead of sampling."""
    overwrite: bool = False
    """Replace a data set of the same id once the new one is complete."""
