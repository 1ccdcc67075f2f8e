"""iCEM: the cross-entropy method with coloured noise and elites that outlive their step."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.bounds import action_bounds
from mbrl_bilevel.planning.colored_noise import colored_noise
from mbrl_bilevel.planning.score import score
from mbrl_bilevel.protocols import Task, TrajectoryModel


class ICEM:
    """Improved cross-entropy method (Pinneri et al. 2020, algorithm 1), batched over environments.

    Each iteration samples sequences around the mean with coloured noise, adds the kept elites (at
    the first iteration: those of the last call, shifted by a step) and at the last iteration the
    mean itself, and refits mean and deviation to the `elites` best. Returned is the best sequence
    of all iterations; where returns tie, the mean and kept elites go before new samples.

    Args:
        action_low, action_high: bounds [a]; no action ever leaves them.
        horizon: steps of look-ahead.
        samples: sequences sampled at the first iteration, divided by `population_decay`
            at each later one, but never fewer than twice the elites.
        beta: exponent of the noise's spectrum; larger is smoother.
        init_std: first standard deviation, in half-widths of the bounds.
        momentum: share of the old mean and deviation in the new ones.
        keep: share of the elites that stay candidates in the next iteration and call.
        discount: weight of each later reward relative to the one before.
        pessimism: deviations over particles taken off their mean return; above 0 for models of
            narrow data, which planners exploit where members disagree.

    Raises:
        InputError: an argument outside its range.
    """

    def __init__(
        self,
        action_low: Sequence[float] | np.ndarray | Tensor,
        action_high: Sequence[float] | np.ndarray | Tensor,
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
        discount: float = 1.0,
        pessimism: float = 0.0,
    ) -> None:
        counts = {
            "horizon": horizon,
            "samples": samples,
            "iterations": iterations,
            "elites": elites,
        }
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"planner {name} {count}: it must be at least 1")
        if elites > samples:
            raise InputError(
                f"planner elites {elites}: there are only {samples} samples to choose them from"
            )
        ranges = {
            "beta": (beta, 0.0, 100.0),
            "init_std": (init_std, 1e-6, 100.0),
            "population_decay": (population_decay, 1.0, 100.0),
            "momentum": (momentum, 0.0, 0.999),
            "keep": (keep, 0.0, 1.0),
            "discount": (discount, 0.0, 1.0),
            "pessimism": (pessimism, 0.0, 1e6),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise InputError(f"planner {name} {value}: it must lie in [{low:g}, {high:g}]")
        self.low, self.high = action_bounds(action_low, action_high)
        self.horizon, self.iterations, self.elites = horizon, iterations, elites
        self.beta, self.init_std, self.momentum = beta, init_std, momentum
        self.discount, self.pessimism = discount, pessimism
        self.kept = round(keep * elites)
        fewest = min(samples, 2 * elites)
        self.population = [
            max(fewest, int(samples / population_decay**i)) for i in range(iterations)
        ]
        self._mean: Tensor | None = None
        self._elites: Tensor | None = None
        self._non_finite: Tensor | int = 0

    @property
    def non_finite_sequences(self) -> int:
        """Candidates so far, over all calls, whose imagined future was not finite."""
        return int(self._non_finite)

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
        self.low, self.high = self.low.to(obs), self.high.to(obs)
        mean, kept = self._warm_start(obs)
        std = (self.init_std * (self.high - self.low) / 2).expand_as(mean)
        best, best_return = mean, obs.new_full((len(obs),), -torch.inf)
        for i, samples in enumerate(self.population):
            groups = [kept, self._sample(mean, std, samples, generator)]
            if i == self.iterations - 1:
                groups.insert(0, mean.unsqueeze(1))
            candidates = torch.cat(groups, dim=1).clamp(self.low, self.high)
            returns, non_finite = score(
                model,
                task,
                obs,
                candidates,
                generator,
                discount=self.discount,
                pessimism=self.pessimism,
            )
            self._non_finite = self._non_finite + non_finite
            top_return, top = returns.max(dim=1)
            better = (top_return >= best_return) & top_return.isfinite()
            best_return = torch.where(better, top_return, best_return)
            best = torch.where(better[:, None, None], _take(candidates, top[:, None])[:, 0], best)
            elite_return, index = returns.topk(self.elites, dim=1)
            elite = _take(candidates, index)
            mean, std = self._refit(mean, std, elite, elite_return.isfinite())
            kept = elite[:, : self.kept]
        self._mean, self._elites = mean, kept
        return best

    def _warm_start(
        self, obs: Float[Tensor, "b o"]
    ) -> tuple[Float[Tensor, "b t a"], Float[Tensor, "b k t a"]]:
        """The last mean and elites shifted by a step, or the middle of the bounds and no elites."""
        if self._mean is None or self._elites is None:
            mean = ((self.low + self.high) / 2).expand(len(obs), self.horizon, -1)
            return mean, mean[:, None][:, :0]
        if len(self._mean) != len(obs):
            raise InputError(
                f"a plan for {len(obs)} environments after one for {len(self._mean)}: "
                "call reset() in between"
            )
        return _shift(self._mean), _shift(self._elites)

    def _sample(
        self,
        mean: Float[Tensor, "b t a"],
        std: Float[Tensor, "b t a"],
        samples: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "b n t a"]:
        shape = (len(mean), samples, mean.shape[-1])
        noise = colored_noise(shape, self.horizon, self.beta, generator, dtype=mean.dtype)
        return mean.unsqueeze(1) + std.unsqueeze(1) * noise.transpose(-1, -2)

    def _refit(
        self,
        mean: Float[Tensor, "b t a"],
        std: Float[Tensor, "b t a"],
        elite: Float[Tensor, "b k t a"],
        usable: Bool[Tensor, "b k"],
    ) -> tuple[Float[Tensor, "b t a"], Float[Tensor, "b t a"]]:
        """Mean and deviation of the usable elites, mixed with the old; the old where none is."""
        weight = usable.to(mean)[:, :, None, None]
        count = weight.sum(1).clamp(min=1)
        elite_mean = (weight * elite).sum(1) / count
        variance = (weight * (elite - elite_mean.unsqueeze(1)).square()).sum(1) / count
        any_usable = usable.any(1)[:, None, None]
        new_mean = self.momentum * mean + (1 - self.momentum) * elite_mean
        new_std = self.momentum * std + (1 - self.momentum) * variance.sqrt()
        return torch.where(any_usable, new_mean, mean), torch.where(any_usable, new_std, std)


def _shift(plan: Float[Tensor, "*s t a"]) -> Float[Tensor, "*s t a"]:
    """The plan one step later; its last action is repeated."""
    return torch.cat([plan[..., 1:, :], plan[..., -1:, :]], dim=-2)


def _take(
    candidates: Float[Tensor, "b n t a"], index: Int[Tensor, "b k"]
) -> Float[Tensor, "b k t a"]:
    return candidates.take_along_dim(index[:, :, None, None], dim=1)
