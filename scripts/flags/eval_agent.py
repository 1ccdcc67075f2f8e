"""Flags of `eval-agent`, without what acts on them: nothing here imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mbrl_bilevel.agents.planning_settings import LearnedModelSettings, MPCSettings, setting_names
from mbrl_bilevel.planning.settings import PLANNERS, ScoringSettings
from mbrl_bilevel.ranges import Count, Range, Threads, check_ranges
from mbrl_bilevel.scripts.flags.optional import optional
from mbrl_bilevel.scripts.flags.parse import (
    help_words,
    hints_of,
    is_help,
    parsed,
    refuse_unknown,
    values_of,
    without,
)
from mbrl_bilevel.scripts.flags.shared import Command

DEFAULT_PLANNER = "icem"


@dataclass(frozen=True, kw_only=True)
class RunFlags(Command):
    """How the command runs, and where results go."""

    out: Path | None = None
    """Parent of the numbered folder of results; default: the model's own folder, or runs/."""
    workers: Count | None = None
    """Episodes played at once, each in its own process; default: the number of cores."""
    threads: Threads = 1
    """Threads of each process; the last digits of results may depend on them."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentFlags:
    """The real environment that agents act in."""

    env: str | None = None
    """Environment id, e.g. Hopper-v5; default: the one the model was trained for, with the
    arguments and wrappers of its data. An id means the environment without either."""
    other_env: bool = False
    """Act in --env though the model was trained for another environment, whose sizes must fit."""


@dataclass(frozen=True, kw_only=True)
class AgentFlags:
    """The agents to evaluate."""

    agent: Literal["mpc", "policy"] = "mpc"
    """mpc: planning in --model; policy: the trained policy in --model, or a shipped --policy."""
    model: Path | tuple[Path, ...] | None = None
    """Run folders of train-model, and `simulator` for planning in the real physics; of policies,
    run folders of train-agent."""
    planner: str | tuple[str, ...] = DEFAULT_PLANNER
    """Planners of mpc: icem, cem, mppi, random_shooting; each plans in each of the models."""
    policy: str = "medium"
    """Shipped policy of --agent policy without --model: medium, expert, random, .... Acts by its
    mean."""


@dataclass(frozen=True, kw_only=True)
class EvaluationFlags:
    """What is played."""

    episodes: Annotated[int, Range(1, 1_000_000)] = 5
    """Episodes of each agent; number i is the same for a seed, however many there are."""
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
        return (self.planner,) if isinstance(self.planner, str) else tuple(self.planner)


def parse(argv: Sequence[str]) -> Config:
    """The configuration of a command line; `--help` shows what applies to its agent and planners.

    Raises:
        InputError: a flag that there is none of, or a planner that there is none of.
        SystemExit: a value of another type, with 2; --help, with 0.
    """
    everything = flag_groups(PLANNERS.names)
    groups: Sequence[Any] = [group.type for group in fields(everything)]
    known = {name: hint for group in groups for name, hint in hints_of(group).items()}
    refuse_unknown("eval-agent", argv, known)
    words, hidden = help_words(argv)
    shown = _applying(argv, hidden) if is_help(words) else everything
    found = vars(parsed("eval-agent", shown, words))
    planning = found.pop("planner")
    values = {name: value for group in found.values() for name, value in vars(group).items()}
    given = {name: value for name, value in vars(planning).items() if value is not None}
    config = Config(**values, planning=given)
    check_ranges(config)
    return config


def flag_groups(
    planners: Sequence[str], hidden: frozenset[str] = frozenset(), *, simulator: bool = False
) -> type:
    """The flags in groups, with those of the named planners; without any of planning for ()."""
    names = {name for one in planners for name in setting_names(one, simulator=simulator)}
    kinds = [PLANNERS.settings(one) for one in planners]
    kinds += [ScoringSettings, MPCSettings, LearnedModelSettings]
    text = f"Planning by {', '.join(planners)}."
    groups = [
        ("run", without(RunFlags, hidden)),
        ("environment", EnvironmentFlags),
        ("agent", AgentFlags),
        ("planner", optional("PlannerFlags", text, kinds, names)),
        ("evaluation", EvaluationFlags),
    ]
    made = make_dataclass("EvalAgentFlags", groups, frozen=True, kw_only=True)
    made.__doc__ = "Returns of agents in the real simulation, several of them side by side."
    return made


def _applying(argv: Sequence[str], hidden: frozenset[str]) -> type:
    """The groups for the agent, models and planners that a command line names."""
    if values_of("agent", argv) == ["policy"]:
        return flag_groups((), hidden)
    planners = values_of("planner", argv) or [DEFAULT_PLANNER]
    return flag_groups(planners, hidden, simulator=values_of("model", argv) == ["simulator"])
