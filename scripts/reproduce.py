"""`reproduce`: the tables of RESULTS.md, each by one command."""

import importlib
from dataclasses import fields

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import flag
from mbrl_bilevel.scripts.command import Outcome
from mbrl_bilevel.scripts.flag_checks import refuse_twice
from mbrl_bilevel.scripts.flags.reproduce import Config

# Flags of each name beside --seed, --device and --json.
TAKES = {
    "dynamics": {"data", "seeds", "steps", "envs", "objectives", "out"},
    "agents": {"data", "seeds", "steps", "envs", "agents", "objectives", "out", "published"},
    "published": {"data", "seeds"},
    "mixtures": {"data", "seeds", "steps", "out"},
    "uci": {"data", "objectives"},
    "sac": {"seeds", "steps", "envs", "out"},
}
OWN = frozenset[str]().union(*TAKES.values())


def run(config: Config) -> Outcome:
    """Raises InputError for flags that the reproduction does not take, or lists that are bad."""
    _check(config)
    module = importlib.import_module(f"mbrl_bilevel.scripts.reproduce_{config.name}")
    outcome: Outcome = module.reproduce(config)
    return outcome


def _check(config: Config) -> None:
    for field in fields(config):
        changed = getattr(config, field.name) != field.default
        if changed and field.name in OWN - TAKES[config.name]:
            raise InputError(
                f"{flag(field.name)} is no flag of reproduce {config.name}: leave it out"
            )
    for name in ("envs", "agents", "objectives"):
        values = getattr(config, name)
        if values is None:
            continue
        if not values:
            raise InputError(f"--{name}: name at least one")
        refuse_twice(f"--{name}", values)
