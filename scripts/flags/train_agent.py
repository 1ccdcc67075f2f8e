"""Flags of train-agent: those of the agent and the objective that are named, and no others."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mbrl_bilevel.agents.presets import by_name_of, preset
from mbrl_bilevel.agents.settings import AGENTS, AgentSettings
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import Count, Range, Threads, flag
from mbrl_bilevel.scripts.flags.objective import objective_group, objective_of, objective_settings
from mbrl_bilevel.scripts.flags.parse import (
    hints_of,
    is_group,
    is_help,
    named,
    parse_groups,
    value_of,
    without,
)
from mbrl_bilevel.scripts.flags.shared import Command

COMMAND = "train-agent"
SUMMARY = "Trains a policy, online or from a data set, in a learned model or without."
CHOOSE = (
    "usage: mbrl-bilevel train-agent --agent AGENT --out FOLDER [FLAGS]\n\n{agents}\n\n"
    "`mbrl-bilevel train-agent --agent AGENT --help` shows the flags of an agent, with the values\n"
    "measured for a task where --env names one; `--objective bilevel --help` those of an objective."
)


@dataclass(frozen=True, kw_only=True)
class RunFlags(Command):
    """The run folder, and how the run is computed."""

    out: Path
    """Run folder: config, metrics, TensorBoard events, checkpoint, policy and model."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint."""
    log_every: Count = 500
    """Steps between two lines of metrics."""
    checkpoint_seconds: Annotated[float, Range(0, math.inf)] = 30.0
    """Seconds between two checkpoints."""
    threads: Threads = 1
    """Threads of torch: networks this small gain little from more."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentFlags:
    """The real environment."""

    env: str | None = None
    """Environment id, e.g. Hopper-v5, where agents act online and every agent is evaluated;
    default: the data set's."""
    max_steps: Count | None = None
    """Truncate episodes after this many steps; default: the environment's own limit."""
    unchecked_task: bool = False
    """Go on where rewards or terminations are not those of the task."""


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """The data set of an offline agent."""

    dataset: str
    """Minari id, or the folder of a Minari data set."""
    download: bool = False
    """Fetch the data set by its id where it is not on this machine."""
    model: Path | None = None
    """Run folder of a trained model; default: one is trained, into OUT/model."""


@dataclass(frozen=True, kw_only=True)
class EvaluationFlags:
    """Evaluations of the policy in the real environment."""

    evaluate_every: Count = 1_000
    """Steps between two evaluations."""
    episodes: Annotated[int, Range(1, 1_000_000)] = 5
    """Episodes of each evaluation, by the policy's mean action, in a process of their own."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A run of train-agent; `data` is None for agents that learn online."""

    run: RunFlags
    environment: EnvironmentFlags
    agent: AgentSettings
    evaluation: EvaluationFlags = EvaluationFlags()
    data: DataFlags | None = None


def parse(argv: Sequence[str]) -> Config:
    """The settings of a command line: the agent's defaults, then its preset for the task, then the
    flags that are given.

    Raises:
        InputError: no agent, a flag that it does not have, or a value out of range. SystemExit:
            after help, and for what tyro cannot read.
    """
    agent = value_of("agent", argv)
    if agent is None:
        if is_help(argv):
            print(CHOOSE.format(agents=_agents()))
            raise SystemExit(0)
        raise InputError(f"name the agent by --agent: {', '.join(AGENTS.names)}")
    kind = AGENTS.settings(agent)
    offline = getattr(kind, "offline", False)
    start: Any = preset(kind, _env_id(argv, offline))
    _refuse_data_flags(agent, offline, by_name_of(start), argv)
    if hasattr(start, "objective"):
        start = replace(start, objective=objective_of(argv, start.objective))
    groups = _groups(agent, start, offline)
    _refuse_misplaced(agent, groups, start, argv)
    found = parse_groups(groups, argv, COMMAND, SUMMARY)
    environment = found["environment"]
    if not offline and environment.env is None:
        raise InputError(f"--agent {agent}: name the environment by --env")
    return Config(
        run=found["run"],
        environment=environment,
        agent=_settings(start, found, {name for name, _ in named(argv)}),
        evaluation=found.get("evaluation", EvaluationFlags()),
        data=found.get("data"),
    )


def _groups(agent: str, start: Any, offline: bool) -> dict[str, Any]:
    groups: dict[str, Any] = {"run": RunFlags, "environment": EnvironmentFlags}
    if offline:
        groups["data"] = DataFlags
    own = _own_flags(agent, start)
    groups["agent"] = own
    for field in fields(start):
        value = getattr(start, field.name)
        if field.name == "objective":
            groups["objective"] = objective_group(value)
        elif is_group(value):
            groups[field.name] = value
    if getattr(start, "evaluates_policy", True):
        groups["evaluation"] = EvaluationFlags
    return groups


def _own_flags(agent: str, start: Any) -> Any:
    """The agent's settings that stand in no group, and the choice of the agent itself."""
    kind = type(start)
    nested = frozenset(f.name for f in fields(kind) if is_group(getattr(start, f.name)))
    chosen = tyro.conf.arg(help=f"One of {', '.join(AGENTS.names)}.", help_behavior_hint="")
    literal: Any = Literal
    made = make_dataclass(
        kind.__name__,
        [("agent", Annotated[literal[agent], chosen], agent)],
        bases=(without(kind, nested, start),),
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = kind.__doc__
    return made(**{f.name: getattr(start, f.name) for f in fields(kind)})


def _settings(start: Any, found: Mapping[str, Any], given: Collection[str]) -> Any:
    """The agent's settings out of the groups that were parsed; rules between them hold for all."""
    values = {}
    for field in fields(start):
        own = field.name in found and is_group(getattr(start, field.name))
        values[field.name] = found[field.name] if own else getattr(found["agent"], field.name)
    if "objective" in found:
        values["objective"] = objective_settings(start.objective, found["objective"])
    made = replace(start, **values)
    # A default weight may stand beside a penalty that was switched off; one that is asked for not.
    by_name = by_name_of(made)
    weight = by_name.get("penalty_weight")
    if weight and "penalty_weight" in given and by_name["penalty"] == "none":
        raise InputError(f"--penalty-weight {weight} of no penalty: choose one by --penalty")
    return made


def _env_id(argv: Sequence[str], offline: bool) -> str:
    """The environment whose preset applies; of an offline agent it may be known by its data."""
    named_env, dataset = value_of("env", argv), value_of("dataset", argv)
    if named_env is not None or not offline or dataset is None:
        return named_env or "none"
    from mbrl_bilevel.data.dataset_folder import dataset_folder  # only here: they take long
    from mbrl_bilevel.data.metadata import read_metadata

    try:
        folder = dataset_folder(dataset, download=any(n == "download" for n, _ in named(argv)))
        spec = read_metadata(folder, dataset).env_spec
    except InputError:
        return "none"  # the command itself will say what is wrong with its data
    return "none" if spec is None else spec.id


def _refuse_data_flags(
    agent: str, offline: bool, own: Collection[str], argv: Sequence[str]
) -> None:
    given = {name for name, _ in named(argv)}
    if offline and "dataset" not in given and not is_help(argv):
        raise InputError(f"--agent {agent} learns from a data set: name one by --dataset")
    if not offline and "dataset" in given:
        raise InputError(
            f"--agent {agent} learns online: leave --dataset out, or choose --agent mopo"
        )
    if not offline and "model" in given - set(own):
        why = "learns without a model" if agent == "sac" else "fits a model of its own"
        if agent == "dhmbpo":
            why = "learns by gradients through a model of its own"
        raise InputError(
            f"--agent {agent} {why}: leave --model out, or choose mopo for a trained model, mbpo "
            "for the simulator"
        )


def _refuse_misplaced(
    agent: str, groups: Mapping[str, Any], start: Any, argv: Sequence[str]
) -> None:
    """Refuses flags of other agents, in words that say which there are."""
    known = {name for group in groups.values() for name in hints_of(group)}
    others = {"objective", *hints_of(EvaluationFlags), *hints_of(DataFlags)}
    for kind in map(AGENTS.settings, AGENTS.names):
        others |= set(by_name_of(kind()))
    for name, value in named(argv):
        plain = name.removeprefix("no_") if name not in others else name
        if plain in others - known:
            raise InputError(
                f"{flag(name)} {value} is no setting of {agent}: leave it out, or choose among "
                f"{', '.join(map(flag, by_name_of(start)))}"
            )


def _agents() -> str:
    rows = []
    for name in AGENTS.names:
        text = " ".join((AGENTS.settings(name).__doc__ or "").split())
        rows.append(f"  {name:<8} {text}")
    return "\n".join(rows)
