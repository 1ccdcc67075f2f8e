"""The spaces of an environment that agents here can act in."""

from dataclasses import dataclass

import gymnasium
import torch
from gymnasium.spaces import Box
from torch import Tensor


@dataclass(frozen=True)
class Spaces:
    """Flat boxes of observations [o] and actions [a], as `make_env` gives them."""

    observation: Box
    action: Box

    @classmethod
    def of(cls, env: gymnasium.Env) -> "Spaces":
        """The spaces of `env`."""
        assert isinstance(env.observation_space, Box)
        assert isinstance(env.action_space, Box)
        return cls(env.observation_space, env.action_space)

    @property
    def obs_dim(self) -> int:
        return int(self.observation.shape[0])

    @property
    def act_dim(self) -> int:
        return int(self.action.shape[0])

    def action_bounds(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Lowest and highest actions, [a] each, float32."""
        # float32 as the networks; gymnasium's boxes may be float64.
        low, high = (
            torch.as_tensor(bound, dtype=torch.float32, device=device)
            for bound in (self.action.low, self.action.high)
        )
        return low, high
