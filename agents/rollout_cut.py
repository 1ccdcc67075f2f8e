"""Rollouts that end where the model is unsure of itself (Frauenknecht et al. 2024, MACURA).

    u(s, a) = mean over pairs of members of the geometric Jensen-Shannon divergence of their
              predictions (Nielsen 2019, equation 55)
    kappa   = cut_scale x the cut_quantile of u over the first steps of the round's rollouts, which
              begin in real states; at least the smallest of these u, so that there are steps to
              learn from
    an imagined step counts, and its rollout goes on, while u <= kappa

For Gaussians of independent dimensions, with v = 2 / (1/v_i + 1/v_j) and
m = v (m_i / v_i + m_j / v_j) / 2, the divergence of members i and j is a sum over dimensions of

    [(v_i + v_j) / v + ((m - m_i)^2 + (m - m_j)^2) / v - 2 + log(v^2 / (v_i v_j))] / 4.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl_bilevel.models.dynamics import DynamicsModel


def jensen_shannon(mean: Float[Tensor, "e b n"], std: Float[Tensor, "e b n"]) -> Float[Tensor, "b"]:
    """Mean over all pairs of e members of their divergence, in nats; e of 2 or more."""
    first, second = torch.triu_indices(len(mean), len(mean), 1, device=mean.device)
    m_i, m_j = mean[first], mean[second]
    v_i, v_j = std[first].square(), std[second].square()
    v = 2 / (1 / v_i + 1 / v_j)
    m = v * (m_i / v_i + m_j / v_j) / 2
    apart = ((m - m_i).square() + (m - m_j).square() + v_i + v_j) / v - 2
    return ((apart + (v.square() / (v_i * v_j)).log()) / 4).sum(-1).mean(0)


class RolloutCut:
    """Which rollouts of one round still go on; made anew for each round.

    Args:
        quantile, scale: of the threshold kappa.
        count: of the rollouts.
    """

    def __init__(self, model: DynamicsModel, quantile: float, scale: float, count: int) -> None:
        self.network = model.elite_network()
        self.model, self.quantile, self.scale = model, quantile, scale
        self.going_on = torch.ones(count, dtype=torch.bool, device=model.elites.device)
        self.threshold: Tensor | None = None

    @torch.no_grad()
    def counts(self, obs: Float[Tensor, "b o"], act: Float[Tensor, "b a"]) -> Bool[Tensor, "b"]:
        """Whether each rollout's next step counts; the first call sets the threshold."""
        gaussian = self.network(self.model.inputs(obs, act))
        unsure = jensen_shannon(gaussian.mean, gaussian.std)
        if self.threshold is None:
            # The first states are real ones: members that differ as much as there are no worse.
            usual = self.scale * torch.quantile(unsure, self.quantile)
            self.threshold = torch.maximum(usual, unsure.amin())
        # What comes after an unsure step is as unsure, whatever the members say of it.
        self.going_on = self.going_on & (unsure <= self.threshold)
        return self.going_on

    def begin_again(self, ended: Bool[Tensor, "b"]) -> None:
        """Where an episode has ended a rollout from another start state takes its place."""
        self.going_on = self.going_on | ended
