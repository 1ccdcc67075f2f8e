"""A policy gradient whose global U is kept at its closed-form optimum while the model trains."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.rewards.closed_form import residual_covariance
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis

Rule = Callable[[Tensor, float | Tensor], Tensor]


class ClosedFormPolicyGradient(PolicyGradient):
    """Sets the reward's U by `rule` from the conditional covariance, re-estimated as that falls.

    At every evaluation Sigma is the residual covariance on held-out data, averaged over members
    (theory T4). Before the first it is the identity, the covariance of standardised targets.
    """

    def __init__(self, reward: Mahalanobis, rule: Rule, **arguments: Any) -> None:
        super().__init__(reward, **arguments)
        self.rule = rule
        self._set(torch.eye(reward.outputs))

    @torch.no_grad()
    def calibrate(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"], y: Float[Tensor, "b n"]
    ) -> None:
        # Rounded to float32, residuals that depend on one another would outweigh a rule's ridge.
        residuals = (network(x).mean - y).double()
        self._set(residual_covariance(residuals).mean(0))

    def _set(self, covariance: Float[Tensor, "n n"]) -> None:
        self.reward.set_precision(self.rule(covariance, self.lam))

    def state(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.named_parameters()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, p in self.named_parameters():
            p.copy_(state[name])
