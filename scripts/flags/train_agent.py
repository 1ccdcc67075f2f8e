"""Flags of train-agent: those of the agent and the objective that are named, and no others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from mbrl_bilevel.agents.settings import AGENTS, AgentSettings
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import Count, Range, Threads
from mbrl_bilevel.scripts.flags.agent import (
    agent_groups,
    agent_of,
    agent_settings,
    refuse_flags_of_others,
)
from mbrl_bilevel.scripts.flags.group import group_of
from mbrl_bilevel.scripts.flags.parse import built, parse_groups
from mbrl_bilevel.scripts.flags.shared import Computing
from mbrl_bilevel.scripts.flags.words import is_help, named, value_of

SUMMARY = "Train an agent, online or offline, model-based or model-free."
CHOOSE = (
    "usage: mbrl-bilevel train-agent --agent AGENT --out FOLDER [FLAGS]\n\n{agents}\n\n"
    "`mbrl-bilevel train-agent --agent AGENT --help` shows the flags of an agent, with the values\n"
    "measured for a task where --env names one; `--objective NAME --help` those of an objective."
)


@dataclass(frozen=True, kw_only=True)
class RunFlags(Computing):
    """The run folder, and how the run is computed."""

    out: Path
    """Run folder: config, metrics, TensorBoard events, checkpoint, policy and model."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint."""
    log_every: Count = 500
    """Steps between two lines of metrics.jsonl."""
    checkpoint_seconds: Annotated[float, Range(0, math.inf)] = 30.0
    """Seconds between two checkpoints."""
    threads: Threads = 1
    """Threads of torch; networks this small gain little from more."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentFlags:
    """The real environment."""

    env: str | None = None
    """Environment id, e.g. Hopper-v5, for online training and for evaluation; default: that of the
    data set."""
    max_steps: Count | None = None
    """Truncate episodes after this many steps; default: the environment's own limit."""
    unchecked_task: bool = False
    """Train even if rewards or terminations differ from the task's."""


@dataclass(frozen=True, kw_only=True)
class DataSetFlags:
    """The data set of an offline agent."""

    dataset: str
    """Minari id, or the folder of a Minari data set."""
    download: bool = False
    """Download the data set if it is not on this machine."""
    cache: bool = True
    """Read a large data set from its HDF5 file; by default its tensors are kept in
    ~/.cache/mbrl-bilevel, where it loads at once the next time."""


@dataclass(frozen=True, kw_only=True)
class DataFlags(DataSetFlags):
    """The data set of an offline agent, and the model that it learns in."""

    model: Path | None = None
    """Run folder of a trained model; default: a model is trained first, in OUT/model."""


@dataclass(frozen=True, kw_only=True)
class EvaluationFlags:
    """Evaluations of the policy in the real environment."""

    evaluate_every: Count = 1_000
    """Steps between two evaluations."""
    episodes: Annotated[int, Range(1, 1_000_000)] = 5
    """Episodes per evaluation, played with the policy's mean action in a separate process."""


OF_SOME_AGENTS = {field.name for kind in (DataFlags, EvaluationFlags) for field in fields(kind)}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A run of train-agent; `data` is None for agents that learn online."""

    run: RunFlags
    environment: EnvironmentFlags
    agent: AgentSettings
    evaluation: EvaluationFlags = EvaluationFlags()
    data: DataSetFlags | None = None


def parse(argv: Sequence[str]) -> Config:
    """The settings of a command line: the agent's defaults, then its preset for the task, then the
    flags that are given.

    Raises:
        InputError: no agent, a flag that it does not have, or a value out of range. SystemExit:
            after help, and for what tyro cannot read.
    """
    agent = value_of("agent", argv)
    if agent is None and is_help(argv):
        print(CHOOSE.format(agents=_agents()))
        raise SystemExit(0)
    if agent is None:
        raise InputError(f"name the agent by --agent: {', '.join(AGENTS.names)}")
    offline = getattr(AGENTS.settings(agent), "offline", False)
    start = agent_of(agent, _env_id(argv, offline), argv)
    groups = agent_groups(start)
    own = {name for group in groups.values() for name in group.hints}
    _check_data_flags(agent, offline, own, argv)
    beside = _groups_beside(
        offline,
        in_model=getattr(start, "needs_model", True),
        evaluates=getattr(start, "evaluates_policy", True),
    )
    groups = {name: group_of(kind) for name, kind in beside.items()} | groups
    refuse_flags_of_others(start, groups, OF_SOME_AGENTS, argv)
    given = parse_groups(groups, argv, "train-agent", SUMMARY)
    config = Config(
        agent=agent_settings(start, given),
        **{name: built(kind, given[name]) for name, kind in beside.items()},
    )
    if not offline and config.environment.env is None:
        raise InputError(f"--agent {agent}: name the environment by --env")
    return config


def _groups_beside(offline: bool, in_model: bool, evaluates: bool) -> dict[str, type[Any]]:
    """The groups of flags beside the agent's own."""
    groups: dict[str, type[Any]] = {"run": RunFlags, "environment": EnvironmentFlags}
    if offline:
        groups["data"] = DataFlags if in_model else DataSetFlags
    if evaluates:
        groups["evaluation"] = EvaluationFlags
    return groups


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


def _check_data_flags(agent: str, offline: bool, own: set[str], argv: Sequence[str]) -> None:
    """Refuses flags of data; `own` are those of the agent, which may be called the same."""
    given = {name for name, _ in named(argv)}
    if offline and "dataset" not in given and not is_help(argv):
        raise InputError(f"--agent {agent} learns from a data set: name one by --dataset")
    if not offline and "dataset" in given:
        raise InputError(
            f"--agent {agent} learns online: leave --dataset out, or choose --agent mopo"
        )
    if not offline and "model" in given - own:
        why = "learns without a model" if agent == "sac" else "fits a model of its own"
        if agent == "dhmbpo":
            why = "learns by gradients through a model of its own"
        raise InputError(
            f"--agent {agent} {why}: leave --model out, or choose mopo for a trained model, mbpo "
            "for the simulator"
        )


def _agents() -> str:
    rows = []
    for name in AGENTS.names:
        text = " ".join((AGENTS.settings(name).__doc__ or "").split())
        rows.append(f"  {name:<8} {text}")
    return "\n".join(rows)
