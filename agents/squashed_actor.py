"""The policy of a learner that differentiates through a model: three SiLU layers, softplus."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.agents.actor import UNIFORM_GAIN, squashed_log_prob
from mbrl_bilevel.agents.behaviour import LEAST_STD
from mbrl_bilevel.data.standardizer import Standardizer
from mbrl_bilevel.models.networks import EnsembleMLP


class SquashedActor(nn.Module):
    """unit action = tanh(mean(s) + std(s) noise), std = softplus(.) + LEAST_STD.

    It reads standardised observations; its log density is that of the unit action in [-1, 1].
    """

    action_bias: Tensor
    action_scale: Tensor

    def __init__(
        self,
        obs_dim: int,
        low: Float[Tensor, "a"],
        high: Float[Tensor, "a"],
        hidden: tuple[int, ...],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.register_buffer("action_bias", (low + high) / 2)
        self.register_buffer("action_scale", (high - low) / 2)
        self.network = EnsembleMLP(1, obs_dim, hidden, 2 * len(low), generator)
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.mul_(UNIFORM_GAIN)

    def forward(self, s: Float[Tensor, "b o"]) -> tuple[Float[Tensor, "b a"], Float[Tensor, "b a"]]:
        """Mean and standard deviation of the Gaussian before the squashing."""
        mean, raw = self.network(s)[0].chunk(2, -1)
        # Softplus, as in the paper: by exp a gradient through many steps could grow without bound.
        return mean, nn.functional.softplus(raw) + float(LEAST_STD)

    def sample(
        self, s: Float[Tensor, "b o"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b a"], Float[Tensor, "b"]]:
        """Unit actions, differentiable in states and parameters, and their log density."""
        mean, std = self(s)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        raw = mean + std * noise
        return raw.tanh(), squashed_log_prob(raw, noise, std.log())

    def scaled(self, unit: Float[Tensor, "*s a"]) -> Float[Tensor, "*s a"]:
        """From [-1, 1] to the box of actions."""
        return self.action_bias + self.action_scale * unit

    def weights(self, standardizer: Standardizer) -> dict[str, np.ndarray]:
        """The same policy for `BehaviourPolicy`, of observations in their own units.

        The standardisation is part of the first layer: W (s - mean) / std + b.
        """
        layers = [(layer.weight[0].T, layer.bias[0, 0]) for layer in self.network.linear_layers()]
        w, b = layers[0]
        # The file's policy reads observations in their own units, and knows no standardiser.
        w = w / standardizer.std
        layers[0] = w, b - w @ standardizer.mean
        found: dict[str, Tensor] = {}
        for i, (w, b) in enumerate(layers[:-1], start=1):
            found |= {f"w{i}": w, f"b{i}": b}
        heads = (part.chunk(2) for part in layers[-1])
        found |= {
            f"{kind}_{name}": head
            for kind, pair in zip("wb", heads, strict=True)
            for name, head in zip(("mu", "raw_std"), pair, strict=True)
        }
        found |= {
            "action_low": self.action_bias - self.action_scale,
            "action_high": self.action_bias + self.action_scale,
        }
        return {k: v.detach().to("cpu", copy=True).contiguous().numpy() for k, v in found.items()}
