"""mbrl-lib's ModelEnv with the reward of HalfCheetah."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from mbrl.models import ModelEnv
from torch import Tensor

from mbrl_bilevel.scripts.peers.mbrl_model import model
from mbrl_bilevel.scripts.peers.protocol import Spec
from mbrl_bilevel.scripts.peers.sizes import ACT, OBS


def model_env(spec: Spec, propagation: str) -> Any:
    """Rewards are read from the later velocity alone: the library shows a reward no other."""
    torch.manual_seed(spec["seed"])
    spaces = SimpleNamespace(
        observation_space=Box(-np.inf, np.inf, (OBS,), np.float32),
        action_space=Box(-1, 1, (ACT,), np.float32),
    )
    generator = torch.Generator().manual_seed(spec["seed"])
    ensemble = model(spec["network"], propagation)
    return ModelEnv(spaces, ensemble, _never, _reward, generator=generator)


def _reward(act: Tensor, next_obs: Tensor) -> Tensor:
    return next_obs[:, 8:9] - 0.1 * act.square().sum(-1, keepdim=True)


def _never(act: Tensor, next_obs: Tensor) -> Tensor:
    return torch.zeros(len(next_obs), 1, dtype=torch.bool)
