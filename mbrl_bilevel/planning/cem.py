"""The cross-entropy method, with Gaussians of limited width."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.planning.elite import refit
from mbrl_bilevel.planning.lookahead import Bounds, Lookahead
from mbrl_bilevel.planning.score import PLAIN, Scoring
from mbrl_bilevel.planning.sequences import take
from mbrl_bilevel.planning.settings import CEMSettings
from mbrl_bilevel.protocols import Task, TrajectoryModel

TRUNCATION = 2.0


class CEM:
    """The cross-entropy method as in PETS (Chua et al. 2018), batched over environments.

    Each iteration samples every action on its own from a Gaussian truncated at 2 deviations, whose
    deviation is at most a quarter of the box, clamps it to the box and refits mean and deviation to
    the `elites` best. Returned is the last mean. The next call starts from it, shifted by a
    decision, with the first deviation. PETS' code also limits the deviation to half the mean's
    distance from the nearer bound: a plan that has reached a bound could never leave it again.
    Unlike PETS' code this runs all its iterations, and `momentum` mixes deviations, not variances.

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
        settings: CEMSettings = CEMSettings(),
        *,
        scoring: Scoring = PLAIN,
        **changes: Any,
    ) -> None:
        self.settings = settings = replace(settings, **changes)
        self.lookahead = Lookahead(
            action_low, action_high, settings.horizon, settings.action_repeat, scoring
        )
        self._mean: Tensor | None = None

    @property
    def action_repeat(self) -> int:
        return self.lookahead.action_repeat

    @property
    def non_finite_sequences(self) -> int:
        """Candidates so far, over all calls, whose imagined future was not finite."""
        return int(self.lookahead.non_finite)

    def reset(self) -> None:
        """Forgets the last plan: for the start of an episode."""
        self._mean = None

    @torch.no_grad()
    def __call__(
        self,
        model: TrajectoryModel,
        task: Task,
        obs: Float[Tensor, "b o"],
        generator: torch.Generator,
    ) -> Float[Tensor, "b t a"]:
        """The mean action sequence [b, t, a] after the last refit, in the environment's units.

        Raises:
            InputError: another number of environments than in the last call without `reset()`.
        """
        ahead, settings = self.lookahead, self.settings
        mean = ahead.start(self._mean, obs)
        std = (settings.init_std * ahead.half_width()).expand_as(mean)
        for _ in range(settings.iterations):
            candidates = self._sample(mean, std, generator)
            returns = ahead.returns(model, task, obs, candidates, generator)
            elite_return, index = returns.topk(settings.elites, dim=1)
            elite = take(candidates, index)
            mean, std = refit(mean, std, elite, elite_return.isfinite(), settings.momentum)
            mean = mean.clamp(ahead.low, ahead.high)  # a mean of bounds may round outside
        self._mean = mean
        return ahead.actions(mean)

    def _sample(
        self,
        mean: Float[Tensor, "b d a"],
        std: Float[Tensor, "b d a"],
        generator: torch.Generator,
    ) -> Float[Tensor, "b n d a"]:
        low, high = self.lookahead.low, self.lookahead.high
        std = torch.minimum(std, self.lookahead.half_width() / TRUNCATION)
        noise = truncated_normal(
            (len(mean), self.settings.samples, *mean.shape[1:]), generator, dtype=mean.dtype
        )
        return (mean.unsqueeze(1) + std.unsqueeze(1) * noise).clamp(low, high)


def truncated_normal(
    shape: tuple[int, ...], generator: torch.Generator, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "*s"]:
    """Standard normal noise that fell within 2 deviations, by its inverse distribution function."""
    device = generator.device
    edge = torch.special.ndtr(torch.tensor(-TRUNCATION, dtype=dtype, device=device))
    unit = torch.rand(shape, generator=generator, device=device, dtype=dtype)
    return torch.special.ndtri(torch.lerp(edge, 1 - edge, unit)).clamp(-TRUNCATION, TRUNCATION)
