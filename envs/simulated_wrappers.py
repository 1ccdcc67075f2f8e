"""What gymnasium's wrappers around a live environment do to simulated actions and rewards."""

from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.wrappers import ClipAction, ClipReward, RescaleAction
from numpy import ndarray

from mbrl_bilevel.envs.rebuild import PASSIVE
from mbrl_bilevel.errors import InputError

Change = Callable[[Any], Any]
ACTIONS: tuple[type, ...] = (RescaleAction, ClipAction)
REWARDS: tuple[type, ...] = (ClipReward,)
UNCHANGING = (*PASSIVE, "TimeLimit", "FlattenObservation")


class SimulatedWrappers:
    """The functions of the wrappers around an environment, for whole arrays.

    Raises:
        InputError: a wrapper that is none of gymnasium's own, or of which is not known that it
            leaves observations as they are, and acts on actions or rewards alone.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        self._actions: list[Change] = []
        self._rewards: list[Change] = []
        while isinstance(env, gymnasium.Wrapper):
            kind, change = type(env), getattr(env, "func", None)
            if kind in ACTIONS and change is not None:
                self._actions.append(change)  # outermost first, as an action passes them
            elif kind in REWARDS and change is not None:
                self._rewards.insert(0, change)  # innermost first, as a reward passes them
            elif kind.__name__ not in UNCHANGING or not _of_gymnasium(kind):
                known = ", ".join(one.__name__ for one in (*ACTIONS, *REWARDS))
                raise InputError(
                    f"the simulator does not know what the wrapper {kind.__name__} does to actions,"
                    f" observations or rewards (it knows {known}): give it the environment without "
                    "that wrapper, or train a model instead"
                )
            env = env.env

    def actions(self, given: ndarray) -> ndarray:
        """Actions as the bare environment gets them."""
        for change in self._actions:
            given = change(given)
        return given

    def rewards(self, paid: ndarray) -> ndarray:
        """What the bare environment pays, as the outermost wrapper returns it."""
        for change in self._rewards:
            paid = change(paid)
        return paid


def _of_gymnasium(kind: type) -> bool:
    return kind.__module__.startswith("gymnasium.wrappers.")
