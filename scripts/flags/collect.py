"""Flags of collect."""

from dataclasses import dataclass
from typing import Annotated, Literal

from mbrl_bilevel.ranges import Range
from mbrl_bilevel.scripts.flags.shared import Command


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of collect."""

    env: str
    """The gymnasium environment, e.g. HalfCheetah-v5."""
    policy: Literal["random", "simple", "medium", "good", "expert"]
    """Who acts; expert is the best policy shipped for the environment."""
    steps: Annotated[int, Range(2, 2**31 - 1)]
    """Exactly so many transitions; the last episode is cut and marked truncated."""
    dataset: str
    """Minari id of the new data set, e.g. mine/halfcheetah-medium-v0."""
    deterministic: bool = False
    """Take the policy's mean instead of sampling its actions."""
    overwrite: bool = False
    """Replace a data set of the same id, once the new one is complete."""
