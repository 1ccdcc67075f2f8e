"""The planners there are, and settings that were measured to do well, by task."""

import inspect
from collections.abc import Callable
from typing import Any

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.cem import CEM
from mbrl_bilevel.planning.icem import ICEM
from mbrl_bilevel.planning.mppi import MPPI
from mbrl_bilevel.planning.random_shooting import RandomShooting
from mbrl_bilevel.protocols import Planner

PLANNERS: dict[str, Callable[..., Planner]] = {
    "icem": ICEM,
    "cem": CEM,
    "mppi": MPPI,
    "random_shooting": RandomShooting,
}

DEFAULTS: dict[str, Any] = {
    "horizon": 30,
    "samples": 128,
    "iterations": 3,
    "elites": 10,
    "beta": 2.0,
    "init_std": 0.5,
    "temperature": 0.3,
    "action_repeat": 1,
    "discount": 1.0,
    "survival": 0.0,
    "terminal_value": "none",
    "caution": 0.0,
    "pessimism": 0.0,
    "disagreement": 0.0,
    "propagation": "ts_inf",
    "particles": None,  # one per elite; see models.propagation
}

# Those of `Scoring`, which every planner takes, and those that a learned model alone gives sense.
SCORING = ("discount", "survival", "pessimism", "disagreement")
OF_THE_TASK = ("terminal_value",)
LEARNED = ("caution", "pessimism", "disagreement", "propagation", "particles")

# Where a task's entry differs from DEFAULTS, and why. Measured with iCEM.
BALANCE = {
    "horizon": 4, "samples": 64, "elites": 6, "beta": 0.0, "init_std": 0.3,
    "terminal_value": "rest",
}  # fmt: skip
BY_TASK: dict[str, dict[str, Any]] = {
    # Unstable by half again every step: over longer horizons early actions are amplified so much
    # that no sampled sequence stands, and over short ones nothing but the value says where to go.
    "InvertedDoublePendulum-v5": BALANCE,
    # Its reward is survival alone: without the value the cart drifts to the end of its rail.
    "InvertedPendulum-v5": BALANCE,
    # Smoother noise (2.0) is too slow for its gait: 1.2 instead of 1.6 times the medium policy.
    "HalfCheetah-v5": {"beta": 1.0},
}
# The same for planning in the simulator, before BY_TASK.
IN_SIMULATOR: dict[str, dict[str, Any]] = {
    # Planned for its reward alone it leaps, and lands where no sequence saves it: here the horizon
    # is about a hop long, and its second half is worth little but staying up.
    "Hopper-v5": {
        "horizon": 120, "samples": 64, "iterations": 2, "elites": 8, "action_repeat": 4,
        "discount": 0.97, "survival": 10.0,
    },
}  # fmt: skip


def planner_settings(
    env_id: str, planner: str = "icem", simulator: bool = False, **chosen: Any
) -> dict[str, Any]:
    """Every setting of a planner for a task; `chosen` ones that are not None go before measured.

    Raises:
        InputError: no such planner, or a chosen setting that the planner, or planning in the
            `simulator`, does not have.
    """
    names = _applying(planner, simulator)
    given = {name: value for name, value in chosen.items() if value is not None}
    for name, value in given.items():
        if name not in names:
            where = "in the simulator" if simulator and name in LEARNED else f"of {planner}"
            raise InputError(
                f"{name.replace('_', '-')} {value} is no setting of planning {where}: leave it "
                f"out, or choose among {', '.join(n.replace('_', '-') for n in names)}"
            )
    measured = BY_TASK.get(env_id, {}) | (IN_SIMULATOR.get(env_id, {}) if simulator else {})
    every = DEFAULTS | measured | given
    return {name: every[name] for name in names}


def _applying(planner: str, simulator: bool) -> list[str]:
    own = inspect.signature(planner_class(planner)).parameters
    others = (*SCORING, *OF_THE_TASK, *LEARNED)
    settings = [name for name in DEFAULTS if name in own or name in others]
    return [name for name in settings if not (simulator and name in LEARNED)]


def planner_class(name: str) -> Callable[..., Planner]:
    """The planner of that name; InputError where there is none."""
    if name not in PLANNERS:
        raise InputError(f"no planner {name!r}: choose one of {', '.join(PLANNERS)}")
    return PLANNERS[name]
