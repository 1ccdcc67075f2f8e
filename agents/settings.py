"""Settings of every agent that learns: the defaults of library and command line, in one place.

An agent's settings are composed of groups; the name of a setting is unique within the agent, so
that flags and presets address it by its name alone. Nothing here imports torch: `--help` is quick.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from mbrl_bilevel.agents.setting_groups import (
    AgentModelSettings,
    ImitationSettings,
    PolicySettings,
    RefitSettings,
    RolloutLength,
    RolloutModelSettings,
    RolloutSettings,
    StartStateSettings,
    TwoHorizonSettings,
)
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.settings import BilevelSettings, NLLSettings
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.ranges import Count, check_ranges
from mbrl_bilevel.registry import Registry


@runtime_checkable
class AgentSettings(Protocol):
    """What settings of every agent have; their other fields are flags too.

    Three class variables may say more: `offline = True`, learns from a data set, in a model of it
    unless `needs_model = False`; and `evaluates_policy = False`, has no policy that could be played
    beside the training.
    """

    @property
    def steps(self) -> int:
        """Steps of the training."""


@dataclass(frozen=True, kw_only=True)
class SACSettings:
    """Soft actor-critic without a model (Haarnoja et al. 2018b)."""

    name: ClassVar[str] = "sac"
    steps: Count = 50_000
    """Environment steps, including the random ones."""
    start_steps: Count = 5_000
    """Environment steps with random actions before learning starts."""
    policy: PolicySettings = PolicySettings()

    def __post_init__(self) -> None:
        check_ranges(self)
        _check_start(self.start_steps, self.steps)


@dataclass(frozen=True, kw_only=True)
class MBPOSettings:
    """MBPO (Janner et al. 2019): soft actor-critic on short rollouts in a learned model."""

    name: ClassVar[str] = "mbpo"
    steps: Count = 25_000
    """Environment steps, including the random ones."""
    start_steps: Count = 1_000
    """Environment steps with random actions before learning starts."""
    objective: ObjectiveSpec = NLLSettings()
    model: RolloutModelSettings = RolloutModelSettings()
    refits: RefitSettings = RefitSettings()
    rollout: RolloutSettings = RolloutSettings(multi_step=True)
    starts: StartStateSettings = StartStateSettings()
    policy: PolicySettings = PolicySettings(
        updates_per_step=10, averaging_rate=5e-4, critic_layer_norm=True
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        _check_objective(self.objective)
        _check_start(self.start_steps, self.steps)


@dataclass(frozen=True, kw_only=True)
class DHMBPOSettings:
    """DHMBPO (Kubo, Parmas, Ishii 2025): policy gradients through a learned model."""

    name: ClassVar[str] = "dhmbpo"
    steps: Count = 50_000
    """Environment steps, including the random ones."""
    start_steps: Count = 5_000
    """Environment steps with random actions before learning starts."""
    objective: ObjectiveSpec = NLLSettings()
    model: AgentModelSettings = AgentModelSettings(
        members=8,
        hidden=(256, 256, 256),
        learn_reward="yes",
        layer_norm=True,
        dropout=0.005,
        noise="constant",
        model_steps=400,
    )
    refits: RefitSettings = RefitSettings(
        refit_every=1_000,
        first_model_steps=2_400,
        model_batch_size=512,
        model_resampling="bootstrap",
        model_weight_decay=1e-3,
        model_schedule="cosine",
    )
    policy: TwoHorizonSettings = TwoHorizonSettings()

    def __post_init__(self) -> None:
        check_ranges(self)
        _check_objective(self.objective)
        _check_start(self.start_steps, self.steps)


@dataclass(frozen=True, kw_only=True)
class MOPOSettings:
    """MOPO (Yu et al. 2020): offline, in a model of a data set, with penalised rewards."""

    name: ClassVar[str] = "mopo"
    offline: ClassVar[bool] = True  # learns from a data set
    steps: Count = 100_000
    """Policy updates, including those of behaviour cloning."""
    objective: ObjectiveSpec = NLLSettings()
    model: AgentModelSettings = AgentModelSettings(model_steps=20_000)
    rollout: RolloutSettings = RolloutSettings(
        rollouts=10_000,
        rollout_length=RolloutLength(5, 5, 0, 1),
        imagine_every=1_000,
        real_ratio=0.5,
        penalty="aleatoric",
        penalty_weight=2.0,
    )
    imitation: ImitationSettings = ImitationSettings()
    policy: PolicySettings = PolicySettings(temperature=0.1)

    def __post_init__(self) -> None:
        check_ranges(self)
        _check_objective(self.objective)


@dataclass(frozen=True, kw_only=True)
class MOBILESettings(MOPOSettings):
    """MOBILE (Sun et al. 2023): MOPO, penalised by how far the members' Bellman targets differ."""

    name: ClassVar[str] = "mobile"
    rollout: RolloutSettings = replace(MOPOSettings.rollout, penalty="bellman", penalty_weight=1.0)


@dataclass(frozen=True, kw_only=True)
class CloningSettings:
    """Behaviour cloning: the policy of a data set, and critics of what it is worth."""

    name: ClassVar[str] = "bc"
    offline: ClassVar[bool] = True  # learns from a data set
    needs_model: ClassVar[bool] = False
    steps: Count = 20_000
    """Updates of policy and critics."""
    policy: PolicySettings = PolicySettings(
        averaging_rate=1e-3, critic_layer_norm=True, entropy_in_values=False
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class PETSSettings:
    """PETS (Chua et al. 2018): planning in a probabilistic ensemble that is refitted online."""

    name: ClassVar[str] = "pets"
    evaluates_policy: ClassVar[bool] = False  # its episodes are its evaluation
    steps: Count = 5_000
    """Environment steps, including the random ones."""
    start_steps: Count = 500
    """Environment steps with random actions before learning starts."""
    planner: Literal["icem", "cem", "mppi", "random_shooting"] = "icem"
    """Planner, at its settings for the task."""
    execute: Literal["best", "mean"] | None = None
    """Action sequence that icem executes, the best one or the mean of the elites; default: best."""
    objective: ObjectiveSpec = NLLSettings()
    model: AgentModelSettings = AgentModelSettings(model_steps=1_000)
    refits: RefitSettings = RefitSettings()

    def __post_init__(self) -> None:
        check_ranges(self)
        _check_objective(self.objective)
        _check_start(self.start_steps, self.steps)
        if self.execute is not None and self.planner != "icem":
            raise InputError(
                f"--execute {self.execute} of --planner {self.planner}: only icem has the choice; "
                "leave it out"
            )


# An agent of one's own is registered by its name, with a dataclass of settings and the function
# that is called with `(settings, acting, *, device, dataset, model)`.
AGENTS: Registry[Any] = Registry("agent")
AGENTS.register("sac", SACSettings, "mbrl_bilevel.agents.build:online")
AGENTS.register("mbpo", MBPOSettings, "mbrl_bilevel.agents.build:online")
AGENTS.register("dhmbpo", DHMBPOSettings, "mbrl_bilevel.agents.build:online")
AGENTS.register("mopo", MOPOSettings, "mbrl_bilevel.agents.build:offline")
AGENTS.register("mobile", MOBILESettings, "mbrl_bilevel.agents.build:offline")
AGENTS.register("bc", CloningSettings, "mbrl_bilevel.agents.build:cloning")
AGENTS.register("pets", PETSSettings, "mbrl_bilevel.agents.build:online")


def _check_start(start: int, steps: int) -> None:
    if start >= steps:
        raise InputError(
            f"--start-steps {start} of --steps {steps}: nothing is learned in random steps; choose "
            "fewer of them, or more steps"
        )


def _check_objective(objective: ObjectiveSpec) -> None:
    if isinstance(objective, BilevelSettings) and objective.visited_by is not None:
        raise InputError(
            "--outer-objective visited follows a finished policy, which an agent in training is "
            "not: choose k_step or one_step, or train the model by train-model"
        )
