"""Flags of `eval-agent`, without what acts on them: nothing here imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from mbrl_bilevel.agents.planning_settings import LearnedModelSettings, MPCSettings, setting_names
from mbrl_bilevel.planning.settings import PLANNERS, ScoringSettings
from mbrl_bilevel.ranges import Count, Range, Threads
from mbrl_bilevel.scripts.flags.group import Flag, Group, group_of
from mbrl_bilevel.scripts.flags.parse import built, parse_groups
from mbrl_bilevel.scripts.flags.shared import Computing
from mbrl_bilevel.scripts.flags.words import is_help, values_of

SUMMARY = "Evaluate agents in the real simulation, several side by side."
DEFAULT_PLANNER, AROUND_A_PRIOR = "icem", "mppi"


@dataclass(frozen=True, kw_only=True)
class RunFlags(Computing):
    """How the command runs, and where results go."""

    out: Path | None = None
    """Folder in which a numbered folder of results is made; default: the model's, or runs/."""
    workers: Count | None = None
    """Episodes played in parallel, each in its own process; default: the number of cores."""
    threads: Threads = 1
    """Threads of each process; they may change the last digits of results."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentFlags:
    """The real environment that agents act in."""

    env: str | None = None
    """Environment id, e.g. Hopper-v5, without arguments or wrappers; default: the environment of
    the model's training data, with its own."""
    other_env: bool = False
    """Allow --env to differ from the environment of the model; sizes must match."""


@dataclass(frozen=True, kw_only=True)
class AgentFlags:
    """The agents to evaluate."""

    agent: Literal["mpc", "policy"] = "mpc"
    """mpc: plan in --model; policy: the trained policy in --model, or a shipped --policy."""
    model: Path | tuple[Path, ...] | None = None
    """Run folders of train-model, or `simulator` to plan in the real physics; with --agent policy,
    run folders of train-agent."""
    planner: str | tuple[str, ...] | None = None
    """Planners of mpc: icem, cem, mppi, random_shooting; each is evaluated with each model;
    default: icem, or mppi with --prior."""
    policy: str = "medium"
    """Shipped policy that --agent policy evaluates if no --model is given: medium, expert,
    random, ...; it plays its mean action."""


@dataclass(frozen=True, kw_only=True)
class EvaluationFlags:
    """The episodes."""

    episodes: Annotated[int, Range(1, 1_000_000)] = 5
    """Episodes per agent; --seed decides the start of episode i, however many are played."""
    max_steps: Count | None = None
    """Truncate episodes after this many steps; default: the environment's own limit."""
    video: bool = False
    """Write a video (mp4) of each agent's first episode."""


@dataclass(frozen=True, kw_only=True)
class Config(RunFlags, EnvironmentFlags, AgentFlags, EvaluationFlags):
    """Flags of eval-agent."""

    planning: Mapping[str, Any] = field(default_factory=dict)
    """Settings of planners and of MPC that were given, by their names; presets fill in the rest."""

    @property
    def models(self) -> tuple[Path, ...]:
        if self.model is None:
            return ()
        return (self.model,) if isinstance(self.model, Path) else tuple(self.model)

    @property
    def planners(self) -> tuple[str, ...]:
        if self.planner is None:
            return (AROUND_A_PRIOR if self.planning.get("prior") else DEFAULT_PLANNER,)
        return (self.planner,) if isinstance(self.planner, str) else tuple(self.planner)


def parse(argv: Sequence[str]) -> Config:
    """The configuration of a command line; `--help` shows what applies to its agent and planners.

    Raises:
        InputError: a flag that there is none of, or a planner that there is none of.
        SystemExit: a value of another type, with 2; --help, with 0.
    """
    shown = _applying(argv) if is_help(argv) else None
    given = parse_groups(flag_groups(PLANNERS.names), argv, "eval-agent", SUMMARY, shown)
    planning = given.pop("planner")
    values = {name: value for group in given.values() for name, value in group.items()}
    return built(Config, values | {"planning": planning})


def flag_groups(planners: Sequence[str], *, simulator: bool = False) -> dict[str, Group]:
    """The flags in groups, with those of the named planners; without any of planning for ()."""
    return {
        "run": group_of(RunFlags),
        "environment": group_of(EnvironmentFlags),
        "agent": group_of(AgentFlags),
        "planner": _planning(planners, simulator),
        "evaluation": group_of(EvaluationFlags),
    }


def _planning(planners: Sequence[str], simulator: bool) -> Group:
    """What any of the planners has; a name that several have is one flag, as the first says it."""
    names = {name for one in planners for name in setting_names(one, simulator=simulator)}
    kinds = [PLANNERS.settings(one) for one in planners]
    flags: dict[str, Flag] = {}
    for kind in (*kinds, ScoringSettings, MPCSettings, LearnedModelSettings):
        for flag in group_of(kind()).flags:
            if flag.name in names:
                flags.setdefault(flag.name, replace(flag, remark=", or by task"))
    return Group(f"Planning by {', '.join(planners)}.", tuple(flags.values()))


def _applying(argv: Sequence[str]) -> dict[str, Group]:
    """The groups for the agent, models and planners that a command line names."""
    if values_of("agent", argv) == ["policy"]:
        return flag_groups(())
    usual = AROUND_A_PRIOR if values_of("prior", argv) else DEFAULT_PLANNER
    planners = values_of("planner", argv) or [usual]
    return flag_groups(planners, simulator=values_of("model", argv) == ["simulator"])
