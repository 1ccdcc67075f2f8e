"""iCEM: the cross-entropy method with coloured noise and elites that outlive their step."""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.planning.colored_noise import colored_noise
from mbrl_bilevel.planning.elite import refit
from mbrl_bilevel.planning.lookahead import Bounds, Lookahead
from mbrl_bilevel.planning.ranges import check_counts, check_elites, check_ranges
from mbrl_bilevel.planning.score import PLAIN, Scoring
from mbrl_bilevel.planning.sequences import shift, take
from mbrl_bilevel.protocols import Task, TrajectoryModel


class ICEM:
    """Improved cross-entropy method (Pinneri et al. 2020, algorithm 1), batched over environments.

    Each iteration samples sequences around the mean with coloured noise, adds the kept elites (at
    the first iteration: those of the last call, shifted by a decision) and at the last iteration
    the mean itself, and refits mean and deviation to the `elites` best. Returned is the best
    sequence of all iterations; where returns tie, the mean and kept elites go before new samples.

    Args:
        action_low, action_high: bounds [a]; no action ever leaves them.
        horizon: steps of look-ahead.
        samples: sequences sampled at the first iteration, divided by `population_decay`
            at each later one, but never fewer than twice the elites.
        beta: exponent of the noise's spectrum; larger is smoother.
        init_std: first standard deviation, in half-widths of the bounds.
        momentum: share of the old mean and deviation in the new ones.
        keep: share of the elites that stay candidates in the next iteration and call.
        action_repeat: steps that each decision is held for; a call moves on by one decision.
        scoring: what a sequence is worth.

    Raises:
        InputError: an argument outside its range.
    """

    def __init__(
        self,
        action_low: Bounds,
        action_high: Bounds,
        *,
        horizon: int = 30,
        samples: int = 128,
        iterations: int = 3,
        elites: int = 10,
        beta: float = 2.0,
        init_std: float = 0.5,
        population_decay: float = 1.25,
        momentum: float = 0.1,
        keep: float = 0.3,
        action_repeat: int = 1,
        scoring: Scoring = PLAIN,
    ) -> None:
        check_counts(samples=samples, iterations=iterations, elites=elites)
        check_elites(elites, samples)
        check_ranges(
            beta=(beta, 0.0, 100.0),
            init_std=(init_std, 1e-6, 100.0),
            population_decay=(population_decay, 1.0, 100.0),
            momentum=(momentum, 0.0, 0.999),
            keep=(keep, 0.0, 1.0),
        )
        self.lookahead = Lookahead(action_low, action_high, horizon, action_repeat, scoring)
        self.elites, self.beta = elites, beta
        self.init_std, self.momentum = init_std, momentum
        self.kept = round(keep * elites)
        self.population = _population(samples, iterations, population_decay, 2 * elites)
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
        """The best action sequence found from each observation; starts from the last call's plan.

        Raises:
            InputError: another number of environments than in the last call without `reset()`.
        """
        ahead = self.lookahead
        mean = ahead.start(self._mean, obs)
        kept = mean.unsqueeze(1)[:, :0] if self._elites is None else shift(self._elites)
        std = (self.init_std * ahead.half_width()).expand_as(mean)
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
            elite_return, index = returns.topk(self.elites, dim=1)
            elite = take(candidates, index)
            mean, std = refit(mean, std, elite, elite_return.isfinite(), self.momentum)
            kept = elite[:, : self.kept]
        self._mean, self._elites = mean, kept
        return ahead.actions(best)

    def _sample(
        self,
        mean: Float[Tensor, "b d a"],
        std: Float[Tensor, "b d a"],
        samples: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "b n d a"]:
        shape = (len(mean), samples, mean.shape[-1])
        noise = colored_noise(shape, mean.shape[1], self.beta, generator, dtype=mean.dtype)
        return mean.unsqueeze(1) + std.unsqueeze(1) * noise.transpose(-1, -2)


def _population(samples: int, iterations: int, decay: float, fewest: int) -> list[int]:
    """How many sequences each iteration samples."""
    sizes = [samples]
    while len(sizes) < iterations:
        size = int(samples / decay ** len(sizes))
        if size <= fewest:  # and so are all later ones; the power would soon overflow
            return sizes + [min(samples, fewest)] * (iterations - len(sizes))
        sizes.append(size)
    return sizes
