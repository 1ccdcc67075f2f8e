"""What a learned model must beat over many steps: a linear model of the change."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.evaluation.windows import Windows
from mbrl_bilevel.models.dynamics import DynamicsModel

RIDGE = 1e-4  # of the number of rows: next to nothing, but two equal inputs divide by no zero


@dataclass(frozen=True)
class LinearModel:
    """next = clamp(obs + restore(W x)): ridge regression of the change on (obs, action).

    x and the change are standardised as the learned model's are, and what it predicts is kept in
    the same range, so that no unstable mode runs off to infinity.
    """

    model: DynamicsModel
    weight: Float[Tensor, "i o"]

    @staticmethod
    @torch.no_grad()
    def fit(model: DynamicsModel, train: Transitions) -> "LinearModel":
        """Least squares on the training part, penalised by RIDGE times its rows, in float64.

        No intercept: on the part that fitted the standardisers inputs and changes have mean 0.
        Changes that are constant there have weight 0.
        """
        x, y = model.encode(train)
        x, y = x.double(), model.widen(y)[:, : model.obs_dim].double()
        penalty = RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        weight = torch.linalg.solve(x.T @ x + penalty, x.T @ y)
        return LinearModel(model, model.cast(weight))

    @torch.no_grad()
    def paths(self, windows: Windows) -> Float[Tensor, "s k o"]:
        """Observations after 1 ... k steps of the recorded actions."""
        model, o = self.model, self.model.obs_dim
        target = model.target_standardizer
        state, visited = model.cast(windows.start), []
        lowest, highest = model.reachable(state, windows.steps)
        for action in windows.actions.unbind(1):
            change = model.inputs(state, action) @ self.weight * target.std[:o] + target.mean[:o]
            state = (state + change).clamp(lowest, highest)
            visited.append(state)
        return torch.stack(visited, 1)
