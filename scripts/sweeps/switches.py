"""Flags of the commands that are on or off and take no value."""

import importlib
from functools import cache

from mbrl_bilevel.scripts.flags.group import group_of

# Classes of flags in scripts/flags, by command; those of agents and objectives take values.
CLASSES = {
    "train-model": ("RunFlags", "DataFlags"),
    "train-agent": ("RunFlags", "EnvironmentFlags", "DataFlags", "EvaluationFlags"),
    "eval-model": ("Config",),
    "eval-agent": ("RunFlags", "EnvironmentFlags", "AgentFlags", "EvaluationFlags"),
}


@cache
def switches(command: str) -> dict[str, bool]:
    """The switches of a command by their names, with what they are by default."""
    module = importlib.import_module(f"mbrl_bilevel.scripts.flags.{command.replace('-', '_')}")
    groups = (group_of(getattr(module, name)) for name in CLASSES[command])
    return {flag.name: flag.default for group in groups for flag in group.flags if flag.switch}
