"""Random shooting: the best of many uniformly random action sequences."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.planning.lookahead import Bounds, Lookahead
from mbrl_bilevel.planning.score import PLAIN, Scoring
from mbrl_bilevel.planning.sequences import take
from mbrl_bilevel.planning.settings import RandomShootingSettings
from mbrl_bilevel.protocols import Task, TrajectoryModel


class RandomShooting:
    """The best of `samples` sequences of actions drawn uniformly from the box, over environments.

    The last call's plan, shifted by a decision, is a candidate too (at first: the centre of the
    box), so that a good plan is not lost. Nagabandi et al. 2018, section IV-C.

    Args:
        action_low, action_high: bounds [a] in the environment's units; no action ever leaves them.
        settings: of the planner; `changes` replace some of them by name.
        scoring: what a sequence is worth.

    Raises:
        InputError: bounds that are not finite or not in order, or a setting outside its range.
    """

    def __init__(
        self,
        action_low: Bounds,
        action_high: Bounds,
        settings: RandomShootingSettings = RandomShootingSettings(),
        *,
        scoring: Scoring = PLAIN,
        **changes: Any,
    ) -> None:
        self.settings = settings = replace(settings, **changes)
        self.lookahead = Lookahead(
            action_low, action_high, settings.horizon, settings.action_repeat, scoring
        )
        self._best: Tensor | None = None

    @property
    def action_repeat(self) -> int:
        return self.lookahead.action_repeat

    @property
    def non_finite_sequences(self) -> int:
        """Candidates so far, over all calls, whose imagined future was not finite."""
        return int(self.lookahead.non_finite)

    def reset(self) -> None:
        """Forgets the last plan: for the start of an episode."""
        self._best = None

    @torch.no_grad()
    def __call__(
        self,
        model: TrajectoryModel,
        task: Task,
        obs: Float[Tensor, "b o"],
        generator: torch.Generator,
    ) -> Float[Tensor, "b t a"]:
        """The best sequence [b, t, a] from `obs` [b, o], in the environment's units.

        The last plan where no sequence has a finite future.

        Raises:
            InputError: another number of environments than in the last call without `reset()`.
        """
        ahead = self.lookahead
        last = ahead.start(self._best, obs)
        shape = (len(obs), self.settings.samples, *last.shape[1:])
        unit = torch.rand(shape, generator=generator, device=obs.device, dtype=obs.dtype)
        drawn = torch.lerp(ahead.low, ahead.high, unit).clamp(ahead.low, ahead.high)
        candidates = torch.cat([last.unsqueeze(1), drawn], dim=1)
        top_return, top = ahead.returns(model, task, obs, candidates, generator).max(dim=1)
        found = take(candidates, top[:, None])[:, 0]
        self._best = torch.where(top_return.isfinite()[:, None, None], found, last)
        return ahead.actions(self._best)
