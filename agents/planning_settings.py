"""Settings of model-predictive control, and what was measured to do well, by task.

Nothing here imports torch: `--help` is quick.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.settings import (
    PLANNERS,
    ICEMSettings,
    RandomShootingSettings,
    ScoringSettings,
)
from mbrl_bilevel.ranges import Count, NotNegative, check_ranges, flag

OF_ENSEMBLES = ("pessimism", "disagreement")  # fields of ScoringSettings that say nothing elsewhere


@dataclass(frozen=True, kw_only=True)
class LearnedModelSettings:
    """How a planner looks ahead in a learned model."""

    propagation: Literal["ts1", "ts_inf", "mean", "mixture"] = "ts_inf"
    """Propagation of uncertainty: trajectory sampling, the members' means, or moment matching."""
    particles: Count | None = None
    """Imagined futures of each sequence; default: one per elite member of the model."""
    data_support_penalty: NotNegative = 0.0
    """Largest penalty of an imagined step for its distance from the training data, in reward
    units."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class MPCSettings:
    """Model-predictive control in a learned model, or in the simulator where `model` is None.

    Raises:
        InputError: a value outside its range, pessimism or disagreement in the simulator, which has
            no members, a critic without a prior, or a prior of a planner that samples the whole
            box.
    """

    planner: Any = ICEMSettings()
    """Settings of a planner of `planning.settings.PLANNERS`, which tell the planner itself."""
    scoring: ScoringSettings = ScoringSettings()
    prior: str | None = None
    """Policy that sequences are drawn around: a run folder of train-agent, or a shipped policy such
    as medium; default: no policy."""
    terminal_value: Literal["none", "rest", "critic"] = "none"
    """Value of the last imagined state; rest, for tasks that balance: the LQR value of a return to
    the state that episodes start near, in the linearised model; critic: what the critics of --prior
    say."""
    model: LearnedModelSettings | None = LearnedModelSettings()

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in OF_ENSEMBLES if self.model is None else ():
            if getattr(self.scoring, name):
                raise InputError(
                    f"{flag(name)} {getattr(self.scoring, name)} in the simulator, which has no "
                    "ensemble: leave it at 0"
                )
        if self.terminal_value == "critic" and self.prior is None:
            raise InputError(
                "--terminal-value critic: name the run whose critics they are by --prior"
            )
        if self.prior is not None and isinstance(self.planner, RandomShootingSettings):
            raise InputError(
                f"--prior {self.prior} of --planner random_shooting, which samples the whole box "
                "of actions: choose icem, cem or mppi"
            )

    def by_name(self) -> dict[str, Any]:
        """Every setting that applies, by its name."""
        found = vars(self.planner) | vars(self.scoring)
        found |= {"prior": self.prior, "terminal_value": self.terminal_value}
        if self.model is not None:
            return found | vars(self.model)
        return {name: value for name, value in found.items() if name not in OF_ENSEMBLES}


# What is measured to do better than the defaults, and why. Measured with iCEM; other planners take
# what they have of it.
BALANCE: dict[str, Any] = {
    "horizon": 4, "samples": 64, "elites": 6, "beta": 0.0, "init_std": 0.3,
    "terminal_value": "rest",
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    # Unstable by half again every step: over longer horizons early actions are amplified so much
    # that no sampled sequence stands, and over short ones nothing but the value says where to go.
    "InvertedDoublePendulum-v5": BALANCE,
    # Its reward is 1 for every step: without the value the cart drifts to the end of its rail.
    "InvertedPendulum-v5": BALANCE,
    # Smoother noise (2.0) is too slow for its gait: 1.2 instead of 1.6 times the medium policy.
    "HalfCheetah-v5": {"beta": 1.0},
}
# The same for planning in the simulator, before PRESETS.
SIMULATOR_PRESETS: dict[str, dict[str, Any]] = {
    # Planned for its reward alone it leaps, and lands where no sequence saves it: here the horizon
    # is about a hop long, and its second half is worth little but staying up.
    "Hopper-v5": {
        "horizon": 120, "samples": 64, "iterations": 2, "elites": 8, "action_repeat": 4,
        "discount": 0.97, "alive_bonus": 10.0,
    },
}  # fmt: skip
# The same for planning around a policy, in place of PRESETS: near the data a model is right, and a
# few steps of it say enough.
PRIOR_PRESET: dict[str, Any] = {
    "horizon": 10, "samples": 64, "iterations": 1, "temperature": 0.2, "beta": 1.0,
    "init_std": 0.1, "discount": 0.99, "pessimism": 1.0, "propagation": "mean",
}  # fmt: skip


def mpc_settings(
    env_id: str, planner: str = "icem", *, simulator: bool = False, **chosen: Any
) -> MPCSettings:
    """The settings of a planner for a task; `chosen` ones that are not None go before the presets.

    Raises:
        InputError: no such planner; a chosen setting that the planner, or planning in the
            `simulator`, does not have, or one outside its range.
    """
    names = setting_names(planner, simulator=simulator)
    given = {name: value for name, value in chosen.items() if value is not None}
    for name, value in given.items():
        if name not in names:
            of_models = simulator and name in setting_names(planner)
            where = "planning in the simulator" if of_models else planner
            raise InputError(
                f"{flag(name)} {value} is no setting of {where}: leave it out, or choose among "
                f"{', '.join(map(flag, names))}"
            )
    preset = PRESETS.get(env_id, {}) | (SIMULATOR_PRESETS.get(env_id, {}) if simulator else {})
    if given.get("prior") is not None:
        preset = PRIOR_PRESET
    values = {name: value for name, value in (preset | given).items() if name in names}

    def made(kind: type) -> Any:
        return kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})

    return MPCSettings(
        planner=made(PLANNERS.settings(planner)),
        scoring=made(ScoringSettings),
        prior=values.get("prior"),
        terminal_value=values.get("terminal_value", "none"),
        model=None if simulator else made(LearnedModelSettings),
    )


def setting_names(planner: str, *, simulator: bool = False) -> list[str]:
    """Names of the settings that planning by `planner` has; InputError for no planner."""
    made = MPCSettings(
        planner=PLANNERS.settings(planner)(), model=None if simulator else LearnedModelSettings()
    )
    return list(made.by_name())
