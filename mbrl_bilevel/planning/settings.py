"""Settings of the planners and of what sequences are worth; no import of torch.

The defaults of library and command line. Each planner has the fields that it uses and no others.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import Range, check_ranges
from mbrl_bilevel.registry import Registry

Number = Annotated[int, Range(1, 1_000_000)]
Exponent = Annotated[float, Range(0, 100)]
HalfWidths = Annotated[float, Range(1e-6, 100)]
Momentum = Annotated[float, Range(0, 0.999)]
Weight = Annotated[float, Range(0, 1e6)]


@dataclass(frozen=True, kw_only=True)
class RandomShootingSettings:
    """The best of uniformly random action sequences (Nagabandi et al. 2018)."""

    horizon: Number = 30
    """Steps of look-ahead."""
    samples: Number = 128
    """Action sequences sampled per call."""
    action_repeat: Number = 1
    """Steps that each sampled action is held for."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class CEMSettings:
    """Cross-entropy method with truncated Gaussians (Chua et al. 2018)."""

    horizon: Number = 30
    """Steps of look-ahead."""
    samples: Number = 128
    """Action sequences sampled at each iteration."""
    iterations: Number = 3
    """Rounds of sampling and refitting per call."""
    elites: Number = 10
    """Number of best sequences that the distribution is refitted to."""
    init_std: HalfWidths = 0.5
    """Initial standard deviation of actions, in half-widths of their bounds."""
    momentum: Momentum = 0.1
    """Weight of the previous mean and deviation in the refitted ones."""
    action_repeat: Number = 1
    """Steps that each sampled action is held for."""

    def __post_init__(self) -> None:
        check_ranges(self)
        _check_elites(self.elites, self.samples)


@dataclass(frozen=True, kw_only=True)
class ICEMSettings:
    """Improved cross-entropy method with coloured noise (Pinneri et al. 2020)."""

    horizon: Number = 30
    """Steps of look-ahead."""
    samples: Number = 128
    """Action sequences sampled at the first iteration."""
    iterations: Number = 3
    """Rounds of sampling and refitting per call."""
    elites: Number = 10
    """Number of best sequences that the distribution is refitted to."""
    beta: Exponent = 2.0
    """Exponent of the noise spectrum f^-beta; 0 is white, larger is smoother."""
    init_std: HalfWidths = 0.5
    """Initial standard deviation of actions, in half-widths of their bounds."""
    population_decay: Annotated[float, Range(1, 100)] = 1.25
    """Factor by which samples shrink at each iteration, down to twice the elites."""
    momentum: Momentum = 0.1
    """Weight of the previous mean and deviation in the refitted ones."""
    keep: Annotated[float, Range(0, 1)] = 0.3
    """Share of the elites kept as candidates for the next iteration and call."""
    execute: Literal["best", "mean"] = "best"
    """What is acted out: the best sequence found, or the last mean, as cem and mppi do."""
    action_repeat: Number = 1
    """Steps that each sampled action is held for."""

    def __post_init__(self) -> None:
        check_ranges(self)
        _check_elites(self.elites, self.samples)


@dataclass(frozen=True, kw_only=True)
class MPPISettings:
    """Model-predictive path integral control (Williams et al. 2017)."""

    horizon: Number = 30
    """Steps of look-ahead."""
    samples: Number = 128
    """Action sequences sampled at each iteration."""
    iterations: Number = 3
    """Rounds of sampling and weighting per call."""
    temperature: Annotated[float, Range(1e-3, 1e3)] = 0.3
    """Temperature lambda, in standard deviations of the returns; small: the best alone counts."""
    beta: Exponent = 2.0
    """Exponent of the noise spectrum f^-beta; 0 is white, larger is smoother."""
    init_std: HalfWidths = 0.5
    """Standard deviation of the noise, in half-widths of the action bounds."""
    action_repeat: Number = 1
    """Steps that each sampled action is held for."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class ScoringSettings:
    """What an imagined action sequence is worth; see `planning.score.Scoring`."""

    discount: Annotated[float, Range(0, 1)] = 1.0
    """Discount factor of the imagined rewards."""
    alive_bonus: Weight = 0.0
    """Reward added to each imagined step that does not terminate, undiscounted."""
    pessimism: Weight = 0.0
    """Standard deviations over particles subtracted from their mean return."""
    disagreement: Weight = 0.0
    """Reward subtracted per step and unit of the ensemble's disagreement."""

    def __post_init__(self) -> None:
        check_ranges(self)


# One's own planner is registered by its name, with a dataclass of settings and the class that is
# built by `(action_low, action_high, settings, scoring=...)`.
PLANNERS: Registry[Any] = Registry("planner")
PLANNERS.register("icem", ICEMSettings, "mbrl_bilevel.planning.icem:ICEM")
PLANNERS.register("cem", CEMSettings, "mbrl_bilevel.planning.cem:CEM")
PLANNERS.register("mppi", MPPISettings, "mbrl_bilevel.planning.mppi:MPPI")
PLANNERS.register(
    "random_shooting",
    RandomShootingSettings,
    "mbrl_bilevel.planning.random_shooting:RandomShooting",
)


def _check_elites(elites: int, samples: int) -> None:
    if elites > samples:
        raise InputError(
            f"--elites {elites}: there are only {samples} samples to choose them from; choose "
            "fewer, or more --samples"
        )
