"""What the outer level minimises beside a likelihood: errors of the mean."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.models.dynamics import INPUT_BOUND, DynamicsModel
from mbrl_bilevel.objectives.outer_data import WindowBatch
from mbrl_bilevel.objectives.visited import VisitedBatch

LOST = 4.0  # squared deviations; the error of a state drawn at random from the data is 2

Mean = Callable[[Tensor], Tensor]  # inputs [E, M, d] to the members' means [E, M, n]


@runtime_checkable
class OuterObjective(Protocol):
    """A loss of the members' mean function on outer data, a sum over members.

    Each member has a linear system of its own, on the scale of its own loss: theory T8.
    """

    def __call__(self, mean: Mean, data: Any, /) -> Float[Tensor, ""]: ...


def visited_error(mean: Mean, rows: VisitedBatch) -> Float[Tensor, ""]:
    """Squared error of one step, the mean over targets and weighted rows (theory T12)."""
    each = (mean(rows.x) - rows.y).square().mean(-1)
    return (rows.weight * each).mean(-1).sum()


class KStepError:
    """Squared error of every member's own open-loop path over the windows of its outer data.

    In standard deviations of the observation, and of the reward where the model learns it, as
    `evaluation.k_step`; the mean over windows, steps and dimensions that vary (theory T10). States
    and inputs are clamped as by `models.propagation`. The error of a step of a window counts up to
    LOST, so that windows on which the path is lost neither dominate nor give a gradient.
    """

    def __init__(self, model: DynamicsModel) -> None:
        self.model = model

    def __call__(self, mean: Mean, windows: WindowBatch) -> Float[Tensor, ""]:
        observations, rewards = self.paths(mean, windows)
        error = (observations - windows.observations)[..., self.model.informative_observations]
        if windows.rewards is not None:
            error = torch.cat([error, (rewards - windows.rewards).unsqueeze(-1)], -1)
        each = error.square().mean(-1).clamp(max=LOST)
        return each.mean((1, 2)).sum()

    def paths(
        self, mean: Mean, windows: WindowBatch
    ) -> tuple[Float[Tensor, "e m k o"], Float[Tensor, "e m k"]]:
        """Standardised observations and rewards after 1 ... k steps; rewards that are not learned
        are 0."""
        size, targets = self.model.obs_dim, self.model.target_standardizer
        std = self.model.input_standardizer.std[:size]
        scale, shift = targets.std[:size] / std, targets.mean[:size] / std
        state, states, rewards = windows.start, [], []
        for t in range(windows.actions.shape[2]):
            seen = state.clamp(-INPUT_BOUND, INPUT_BOUND)
            y = self.model.widen(mean(torch.cat([seen, windows.actions[:, :, t]], -1)))
            state = state + shift + scale * y[..., :size]
            state = state.clamp(windows.lowest, windows.highest)
            states.append(state)
            rewards.append(y[..., size] if self.model.learn_reward else torch.zeros_like(y[..., 0]))
        return torch.stack(states, 2), torch.stack(rewards, 2)
