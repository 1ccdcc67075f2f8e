"""What every sampling planner shares: action bounds, horizon, action repeat and scoring."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.bounds import action_bounds, rounded_inward
from mbrl_bilevel.planning.score import Scoring
from mbrl_bilevel.planning.sequences import hold, shift
from mbrl_bilevel.protocols import Task, TrajectoryModel

Bounds = Sequence[float] | np.ndarray | Tensor


class Lookahead:
    """Scores sequences of `decisions` actions, each held for `action_repeat` steps of `horizon`.

    `horizon` counts steps of the environment; the last decision may be held for fewer.
    `non_finite` counts the sequences so far whose imagined future was not finite.

    Raises:
        InputError: bounds of unequal lengths, not finite, or not in order.
    """

    def __init__(
        self,
        action_low: Bounds,
        action_high: Bounds,
        horizon: int,
        action_repeat: int,
        scoring: Scoring,
    ) -> None:
        self.low, self.high = action_bounds(action_low, action_high)
        self.horizon, self.action_repeat, self.scoring = horizon, action_repeat, scoring
        self.decisions = -(-horizon // action_repeat)
        self.non_finite: Int[Tensor, ""] | int = 0

    def returns(
        self,
        model: TrajectoryModel,
        task: Task,
        obs: Float[Tensor, "b o"],
        candidates: Float[Tensor, "b n d a"],
        generator: torch.Generator,
    ) -> Float[Tensor, "b n"]:
        """Returns [b, n] of the candidates; -inf where an imagined future is not finite.

        Raises:
            InputError: what `Scoring` refuses.
        """
        scored = self.scoring(model, task, obs, self.actions(candidates), generator)
        self.non_finite = self.non_finite + scored.non_finite
        return scored.returns

    def actions(self, decisions: Float[Tensor, "*s d a"]) -> Float[Tensor, "*s t a"]:
        """The actions of every step: each decision held for `action_repeat` steps."""
        return hold(decisions, self.action_repeat, self.horizon)

    def start(
        self, last: Float[Tensor, "c d a"] | None, obs: Float[Tensor, "b o"]
    ) -> Float[Tensor, "b d a"]:
        """The initial plan: the last one shifted by a decision, or the centre of the box.

        Raises:
            InputError: the last plan was for another number of environments, or no number of the
                dtype of `obs` lies in the box.
        """
        if (self.low.dtype, self.low.device) != (obs.dtype, obs.device):
            self.low, self.high = rounded_inward(self.low, self.high, obs)
        if last is None:
            return ((self.low + self.high) / 2).expand(len(obs), self.decisions, -1)
        if len(last) != len(obs):
            raise InputError(
                f"a plan for {len(obs)} environments after one for {len(last)}: "
                "call reset() in between"
            )
        return shift(last)

    def half_width(self) -> Float[Tensor, "a"]:
        """Half of the box, the unit of `init_std`."""
        return (self.high - self.low) / 2
