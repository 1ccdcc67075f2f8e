"""The agent that a command line names, and its flags.

An agent's settings are numbers and words, which stand in the group "agent", and groups of them
(`model`, `policy`, ...), which are groups of flags of the same name. A flag is named by its setting
alone, which is unique within the agent.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any, Literal

from mbrl_bilevel.agents.presets import by_name_of, is_group, preset, updated
from mbrl_bilevel.agents.setting_groups import RolloutLength
from mbrl_bilevel.agents.settings import AGENTS
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import flag
from mbrl_bilevel.scripts.flags.group import Flag, Group, group_of
from mbrl_bilevel.scripts.flags.objective import objective_group, objective_of
from mbrl_bilevel.scripts.flags.words import named


def agent_of(agent: str, env_id: str, argv: Sequence[str]) -> Any:
    """The settings of an agent before any flag: its defaults, then its preset for a task, with the
    objective that is named.

    Raises:
        InputError: there is no such agent, or no such objective.
    """
    settings: Any = preset(AGENTS.settings(agent), env_id)
    if hasattr(settings, "objective"):
        settings = replace(settings, objective=objective_of(argv, settings.objective))
    return settings


def agent_groups(settings: Any) -> dict[str, Group]:
    """The flags of an agent by group, first the one that names it."""
    literal: Any = Literal
    choice = Flag("agent", literal[AGENTS.names], "Each agent has flags of its own.", MISSING)
    groups = {"agent": group_of(settings).after(choice)}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name == "objective":
            groups["objective"] = objective_group(value)
        elif is_group(value):
            groups[field.name] = group_of(value)
    return groups


def agent_settings(settings: Any, given: Mapping[str, Mapping[str, Any]]) -> Any:
    """The settings of an agent with the values that are given, by group.

    Raises:
        InputError: a value out of range, or values that contradict each other.
    """
    values = {k: v for group in agent_groups(settings) for k, v in given[group].items()}
    values = {k: v for k, v in values.items() if k not in ("agent", "objective")}  # known already
    if "rollout_length" in values:
        values["rollout_length"] = RolloutLength(*values["rollout_length"])
    return updated(settings, **values)


def refuse_flags_of_others(
    settings: Any, groups: Mapping[str, Group], beside: Collection[str], argv: Sequence[str]
) -> None:
    """Refuses flags of other agents, in words that say which this one has.

    `groups` are all flags of this one; `beside` are flags of others that are no settings.

    Raises:
        InputError: the first of them.
    """
    everyones = {"objective", *beside}.union(
        *(by_name_of(AGENTS.settings(name)()) for name in AGENTS.names)
    )
    foreign = everyones.difference(*(group.hints for group in groups.values()))
    for name, value in named(argv):
        if (name if name in everyones else name.removeprefix("no_")) in foreign:
            raise InputError(
                f"{flag(name)} {value} is no setting of {AGENTS.name(settings)}: leave it out, or "
                f"choose among {', '.join(map(flag, by_name_of(settings)))}"
            )
