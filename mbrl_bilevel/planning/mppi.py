"""MPPI: a mean action sequence, moved by exponentially weighted noise."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.planning.colored_noise import colored_noise
from mbrl_bilevel.planning.lookahead import Bounds, Lookahead
from mbrl_bilevel.planning.score import PLAIN, Scoring
from mbrl_bilevel.planning.settings import MPPISettings
from mbrl_bilevel.protocols import Task, TrajectoryModel


class MPPI:
    """Model-predictive path integral control, batched over environments.

    Each iteration samples sequences a_k = mean + noise, clamped to the box, and makes their
    weighted mean sum_k w_k a_k the new mean, with w_k = exp(R_k / lambda) / sum_j exp(R_j / lambda)
    for their returns R. These are the weights of Williams et al. 2017 (information-theoretic MPC)
    without its cost of control, and the reward-weighted refinement of Nagabandi et al. 2020 (PDDM,
    gamma = 1 / lambda), whose filtered noise n_t = beta u_t + (1 - beta) n_{t-1} is replaced by
    noise of the spectrum f^-beta. Returned is the last mean; the next call starts from it, shifted
    by a decision.

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
        settings: MPPISettings = MPPISettings(),
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
        """Weighted mean [b, t, a] of the last iteration's sequences, in the environment's units.

        Raises:
            InputError: another number of environments than in the last call without `reset()`.
        """
        ahead, settings = self.lookahead, self.settings
        mean = ahead.start(self._mean, obs)
        std = settings.init_std * ahead.half_width()
        for _ in range(settings.iterations):
            shape = (len(obs), settings.samples, mean.shape[-1])
            noise = colored_noise(shape, mean.shape[1], settings.beta, generator, dtype=mean.dtype)
            candidates = mean.unsqueeze(1) + std * noise.transpose(-1, -2)
            candidates = candidates.clamp(ahead.low, ahead.high)
            returns = ahead.returns(model, task, obs, candidates, generator)
            weighted = torch.einsum(
                "bn,bnda->bda", weights(returns, settings.temperature), candidates
            )
            usable = returns.isfinite().any(1)[:, None, None]
            mean = torch.where(usable, weighted, mean).clamp(ahead.low, ahead.high)
        self._mean = mean
        return ahead.actions(mean)


def weights(returns: Float[Tensor, "b n"], temperature: float) -> Float[Tensor, "b n"]:
    """exp(R / lambda), normalised, for lambda = temperature times the deviation of finite returns.

    Returns that are not finite weigh nothing; all weights are 0 where none is finite.
    """
    finite = returns.isfinite()
    count = finite.sum(1, keepdim=True).clamp(min=1)
    filled = torch.where(finite, returns, 0.0)
    centred = torch.where(finite, returns - filled.sum(1, keepdim=True) / count, 0.0)
    deviation = (centred.square().sum(1, keepdim=True) / count).sqrt()
    tiny = torch.finfo(returns.dtype).tiny  # equal returns weigh the same
    scaled = (centred / (temperature * deviation).clamp(min=tiny)).masked_fill(~finite, -torch.inf)
    return torch.softmax(scaled, dim=1).nan_to_num(0.0)
