"""A policy's mean action in torch, for whole arrays of imagined states."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.agents.behaviour import BehaviourPolicy, hidden_layers

ACTIVATIONS = {"relu": torch.relu, "silu": nn.functional.silu}


class PolicyMean:
    """The mean action of a `BehaviourPolicy`, on any device."""

    def __init__(self, policy: BehaviourPolicy, device: torch.device | str = "cpu") -> None:
        def tensor(name: str) -> Tensor:
            # A copy: arrays that safetensors maps from a file are read-only.
            return torch.from_numpy(np.array(policy.weights[name])).to(device)

        names = [str(i) for i in range(1, hidden_layers(policy.weights) + 1)]
        self.layers = [(tensor(f"w{i}"), tensor(f"b{i}")) for i in names]
        self.head = tensor("w_mu"), tensor("b_mu")
        self.activation = ACTIVATIONS[policy.metadata.get("activation", "relu")]
        low, high = tensor("action_low"), tensor("action_high")
        self.action_bias, self.action_scale = (low + high) / 2, (high - low) / 2

    @property
    def obs_dim(self) -> int:
        return int(self.layers[0][0].shape[1])

    @property
    def act_dim(self) -> int:
        return len(self.action_bias)

    def unit(self, obs: Float[Tensor, "*s o"]) -> Float[Tensor, "*s a"]:
        """The mean action in [-1, 1]."""
        hidden = obs
        for w, b in self.layers:
            hidden = self.activation(nn.functional.linear(hidden, w, b))
        return nn.functional.linear(hidden, *self.head).tanh()

    @torch.no_grad()
    def __call__(self, obs: Float[Tensor, "*s o"]) -> Float[Tensor, "*s a"]:
        """The mean action in the environment's units, in the dtype of `obs`."""
        # Planners may work in float64, the policy's weights are float32.
        unit = self.unit(obs.to(self.action_bias))
        return (self.action_bias + self.action_scale * unit).to(obs)
