"""The policy of soft actor-critic, and the networks that actor and critics are made of."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.agents.behaviour import LOG_STD_MAX, LOG_STD_MIN
from mbrl_bilevel.models.networks import EnsembleMLP

INSIDE = 1 - 1e-4  # unit actions whose density is asked for
UNIFORM_GAIN = 3**-0.5  # the deviation of U(-1/sqrt(inputs), 1/sqrt(inputs)), torch's own start


class Actor(nn.Module):
    """A squashed Gaussian policy in the box of actions.

    unit action = tanh(mean(s) + exp(log_std(s)) noise),
    action      = action_bias + action_scale unit action;
    its log density is that of the unit action, the change of variables included.
    """

    action_bias: Tensor
    action_scale: Tensor

    def __init__(
        self,
        obs_dim: int,
        low: Float[Tensor, "a"],
        high: Float[Tensor, "a"],
        hidden: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.register_buffer("action_bias", (low + high) / 2)
        self.register_buffer("action_scale", (high - low) / 2)
        self.network = two_layers(1, obs_dim, hidden, 2 * len(low), generator)

    def forward(self, obs: Float[Tensor, "b o"]) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the Gaussian before the squashing, [b, a] each."""
        mean, log_std = self.network(obs)[0].chunk(2, -1)
        # Bounds as in the published code: a deviation that vanishes has no finite density.
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def sample(
        self, obs: Float[Tensor, "b o"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b a"], Float[Tensor, "b"]]:
        """An action for every row, differentiable in the parameters, and its log density."""
        mean, log_std = self(obs)
        # The noise is kept for the density: recovered from the action it would lose its digits.
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        raw = mean + log_std.exp() * noise
        action = self.action_bias + self.action_scale * raw.tanh()
        return action, squashed_log_prob(raw, noise, log_std)

    def log_prob(self, obs: Float[Tensor, "b o"], act: Float[Tensor, "b a"]) -> Float[Tensor, "b"]:
        """Log density of given actions; one on the bounds counts as a little inside."""
        mean, log_std = self(obs)
        # Data hold actions on the bounds, whose raw action would be infinite.
        unit = ((act - self.action_bias) / self.action_scale).clamp(-INSIDE, INSIDE)
        raw = torch.atanh(unit)
        return squashed_log_prob(raw, (raw - mean) * (-log_std).exp(), log_std)

    def weights(self) -> dict[str, np.ndarray]:
        """The same policy for `BehaviourPolicy`, which needs no torch to act."""
        (w1, b1), (w2, b2), (w3, b3) = (
            (layer.weight[0].T, layer.bias[0, 0]) for layer in self.network.linear_layers()
        )
        names = ("w_mu", "w_log_std"), ("b_mu", "b_log_std")
        found = {"w1": w1, "b1": b1, "w2": w2, "b2": b2}
        found |= dict(zip(names[0], w3.chunk(2), strict=True))
        found |= dict(zip(names[1], b3.chunk(2), strict=True))
        found |= {
            "action_low": self.action_bias - self.action_scale,
            "action_high": self.action_bias + self.action_scale,
        }
        return {k: v.detach().to("cpu", copy=True).contiguous().numpy() for k, v in found.items()}


def squashed_log_prob(
    raw: Float[Tensor, "*s a"], noise: Float[Tensor, "*s a"], log_std: Float[Tensor, "*s a"]
) -> Float[Tensor, "*s"]:
    """log density of tanh(raw), raw = mean + exp(log_std) noise, noise standard normal.

    log(1 - tanh(raw)^2) is written as 2 (log 2 - raw - softplus(-2 raw)), which never overflows.
    """
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    squash = 2 * (math.log(2) - raw - nn.functional.softplus(-2 * raw))
    return (gaussian - squash).sum(-1)


def two_layers(
    members: int,
    inputs: int,
    hidden: int,
    outputs: int,
    generator: torch.Generator,
    activation: Callable[[Tensor], Tensor] = torch.relu_,
) -> EnsembleMLP:
    """Perceptrons of two hidden layers, which start as torch's own do."""
    network = EnsembleMLP(
        members, inputs, (hidden, hidden), outputs, generator, activation=activation
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(UNIFORM_GAIN)
    return network


def normalised_relu(x: Float[Tensor, "*s h"]) -> Float[Tensor, "*s h"]:
    """ReLU of every row brought to mean 0 and variance 1 over its units."""
    return nn.functional.layer_norm(x, x.shape[-1:]).relu_()
