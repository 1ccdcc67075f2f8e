"""iCEM: the cross-entropy method with coloured noise and elites kept from step to step."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.planning.colored_noise import colored_noise
from mbrl_bilevel.planning.elite import refit
from mbrl_bilevel.planning.lookahead import Bounds, Lookahead
from mbrl_bilevel.planning.score import PLAIN, Scoring
from mbrl_bilevel.planning.sequences import shift, take
from mbrl_bilevel.planning.settings import ICEMSettings
from mbrl_bilevel.protocols import Task, TrajectoryModel


class ICEM:
    """Improved cross-entropy method (Pinneri et al. 2020, algorithm 1), batched over environments.

    Each iteration samples sequences around the mean with coloured noise, adds the kept elites (at
    the first iteration: those of the last call, shifted by a decision) and at the last iteration
    the mean itself, and refits mean and deviation to the `elites` best. Returned is the best
    sequence of all iterations; where returns tie, the mean and kept elites go before new samples.
    With `execute` "mean" it is the last mean instead, as in PETS (Chua et al. 2018).

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
        settings: ICEMSettings = ICEMSettings(),
        *,
        scoring: Scoring = PLAIN,
        **changes: Any,
    ) -> None:
        self.settings = settings = replace(settings, **changes)
        self.lookahead = Lookahead(
            action_low, action_high, settings.horizon, settings.action_repeat, scoring
        )
        self.kept = round(settings.keep * settings.elites)
        self.population = _population(settings)
        self._mean: Tensor | None = None
        self._elites: Tensor | None = None

    @property
    def action_repeat(self) -> int:
        return self.lookahead.action_repeat

    @property
    def non_finite_sequences(self) -> int:
        """Candidates so far, over all calls, whose imagined future was not finite."""
        return int(self.lookahead.non_finite)

    def reset(self) -> None:
        """Forgets the last plan: for the start of an episode."""
        self._mean, self._elites = None, None

    @torch.no_grad()
    def __call__(
        self,
        model: TrajectoryModel,
        task: Task,
        obs: Float[Tensor, "b o"],
        generator: torch.Generator,
    ) -> Float[Tensor, "b t a"]:
        """The action sequence [b, t, a] to execute from `obs` [b, o], in the environment's units.

        The search starts from the last call's plan.

        Raises:
            InputError: another number of environments than in the last call without `reset()`.
        """
        ahead, settings = self.lookahead, self.settings
        mean = ahead.start(self._mean, obs)
        kept = mean.unsqueeze(1)[:, :0] if self._elites is None else shift(self._elites)
        std = (settings.init_std * ahead.half_width()).expand_as(mean)
        best, best_return = mean, obs.new_full((len(obs),), -torch.inf)
        for i, samples in enumerate(self.population):
            groups = [kept, self._sample(mean, std, samples, generator)]
            if i == len(self.population) - 1:
                groups.insert(0, mean.unsqueeze(1))
            candidates = torch.cat(groups, dim=1).clamp(ahead.low, ahead.high)
            returns = ahead.returns(model, task, obs, candidates, generator)
            top_return, top = returns.max(dim=1)
            better = (top_return >= best_return) & top_return.isfinite()
            best_return = torch.where(better, top_return, best_return)
            best = torch.where(better[:, None, None], take(candidates, top[:, None])[:, 0], best)
            elite_return, index = returns.topk(settings.elites, dim=1)
            elite = take(candidates, index)
            mean, std = refit(mean, std, elite, elite_return.isfinite(), settings.momentum)
            mean = mean.clamp(ahead.low, ahead.high)  # a mean of bounds may round outside
            kept = elite[:, : self.kept]
        self._mean, self._elites = mean, kept
        return ahead.actions(mean if settings.execute == "mean" else best)

    def _sample(
        self,
        mean: Float[Tensor, "b d a"],
        std: Float[Tensor, "b d a"],
        samples: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "b n d a"]:
        shape = (len(mean), samples, mean.shape[-1])
        noise = colored_noise(shape, mean.shape[1], self.settings.beta, generator, dtype=mean.dtype)
        return mean.unsqueeze(1) + std.unsqueeze(1) * noise.transpose(-1, -2)


def _population(settings: ICEMSettings) -> list[int]:
    """How many sequences each iteration samples."""
    sizes, fewest = [settings.samples], min(settings.samples, 2 * settings.elites)
    while len(sizes) < settings.iterations:
        size = int(settings.samples / settings.population_decay ** len(sizes))
        if size <= 2 * settings.elites:  # and so are all later ones; the power would soon overflow
            return sizes + [fewest] * (settings.iterations - len(sizes))
        sizes.append(size)
    return sizes
