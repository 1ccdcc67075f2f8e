"""Open-loop error of a dynamics model over many steps of held-out episodes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel


@dataclass(frozen=True)
class KStep:
    """Errors after 1 ... k steps, in standard deviations of the observation (training part).

    rmse [k]: of the mean over members that each follow their own mean prediction.
    persistence [k]: of the guess that nothing changes. starts: how many starts were averaged.
    """

    rmse: Float[Tensor, "k"]
    persistence: Float[Tensor, "k"]
    starts: int


def starts_of_windows(transitions: Transitions, k: int) -> Int[Tensor, "s"]:
    """Rows from which k steps follow within one episode."""
    episode = transitions.episode
    last = len(transitions) - k
    if last < 0:
        return episode.new_zeros(0)
    return torch.nonzero(episode[: last + 1] == episode[k - 1 :]).squeeze(-1)


def k_step(
    model: DynamicsModel,
    transitions: Transitions,
    k: int,
    generator: torch.Generator,
    max_starts: int = 500,
) -> KStep:
    """Feeds the recorded actions to the model from up to `max_starts` random starts.

    Raises:
        InputError: no episode is k steps long.
    """
    starts = starts_of_windows(transitions, k)
    if len(starts) == 0:
        raise InputError(f"no held-out episode has {k} steps; ask for a shorter horizon")
    chosen = torch.randperm(len(starts), generator=generator, device=starts.device)[:max_starts]
    window = starts[chosen].unsqueeze(-1) + torch.arange(k, device=starts.device)
    obs, actions = transitions.observation[window[:, 0]], transitions.action[window]
    truth = transitions.next_observation[window]
    imagined = model.trajectories(obs, actions.unsqueeze(1), generator, deterministic=True)
    predicted = imagined.observations.mean(0)[:, 0, 1:]
    scale = model.input_standardizer.std[: model.obs_dim]

    def rmse(error: Float[Tensor, "s k o"]) -> Float[Tensor, "k"]:
        return (error / scale).square().mean((0, 2)).sqrt()

    return KStep(rmse(predicted - truth), rmse(obs.unsqueeze(1) - truth), len(window))
