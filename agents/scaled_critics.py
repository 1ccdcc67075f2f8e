"""An ensemble of critics whose values lie between bounds that the rewards seen decide."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.agents.actor import UNIFORM_GAIN
from mbrl_bilevel.models.networks import EnsembleMLP

QUANTILES = 0.01, 0.99
BOUND_RATE = 0.05  # of the moving averages of the quantiles, per detached rollout
LEAST_WIDTH = 1e-3  # where all rewards are alike


class ScaledCritics(nn.Module):
    """Q_i(s, a) = centre + width f_i(s, a), and target networks that follow by Polyak averaging.

    The bounds low and high of a value are moving averages of the 1 % and 99 % quantiles of
    (r - alpha log pi) / (1 - gamma), widened to hold 0, the value of a state that has terminated;
    centre and width are their middle and half their distance (Kubo et al. 2025). Inputs are
    standardised observations beside unit actions.

    Args:
        generator: decides initial weights, dropout and the targets drawn.
        critics: how many; dropout: of their hidden units, in `loss` only.
    """

    low: Tensor
    high: Tensor
    seen: Tensor  # whether the bounds have been set

    def __init__(
        self,
        inputs: int,
        hidden: tuple[int, ...],
        generator: torch.Generator,
        *,
        critics: int = 5,
        dropout: float = 0.001,
        target_rate: float = 0.005,
    ) -> None:
        super().__init__()
        self.generator, self.target_rate = generator, target_rate
        self.critic, self.target = (
            EnsembleMLP(critics, inputs, hidden, 1, generator, layer_norm=True, dropout=dropout)
            for _ in range(2)
        )
        with torch.no_grad():
            for parameter in self.critic.parameters():
                parameter.mul_(UNIFORM_GAIN)
        self.target.load_state_dict(self.critic.state_dict())
        self.target.requires_grad_(False)
        self.register_buffer("low", torch.tensor(-1.0))
        self.register_buffer("high", torch.tensor(1.0))
        self.register_buffer("seen", torch.tensor(False))

    @torch.no_grad()
    def move_bounds(self, soft_reward: Float[Tensor, "b"], discount: float) -> None:
        """Moves the bounds by r - alpha log pi of imagined steps."""
        levels = soft_reward.new_tensor(QUANTILES)
        low, high = (torch.quantile(soft_reward, levels) / (1 - discount)).unbind()
        # The first bounds are taken as they are: -1 and 1 say nothing of the rewards.
        rate = torch.where(self.seen, BOUND_RATE, 1.0)
        # 0, the value of a state that has terminated, must stay within the bounds.
        self.low.lerp_(low.clamp(max=0.0), rate)
        self.high.lerp_(high.clamp(min=0.0), rate)
        self.seen.fill_(True)

    @property
    def centre(self) -> Float[Tensor, ""]:
        return (self.low + self.high) / 2

    @property
    def width(self) -> Float[Tensor, ""]:
        return ((self.high - self.low) / 2).clamp(min=LEAST_WIDTH)

    def value(self, x: Float[Tensor, "b i"]) -> Float[Tensor, "b"]:
        """The mean of all critics, whose parameters gradients leave alone."""
        self.critic.requires_grad_(False)
        q = self.critic(x).squeeze(-1).mean(0)
        self.critic.requires_grad_(True)
        return self.centre + self.width * q

    @torch.no_grad()
    def target_value(self, x: Float[Tensor, "b i"]) -> Float[Tensor, "b"]:
        """The smaller of two target critics, drawn for the batch (Chen et al. 2021, REDQ)."""
        drawn = torch.randperm(self.target.members, generator=self.generator, device=x.device)[:2]
        q = self.target.select(drawn)(x).squeeze(-1)
        return self.centre + self.width * q.amin(0)

    def loss(self, x: Float[Tensor, "b i"], y: Float[Tensor, "b"]) -> Float[Tensor, ""]:
        """Squared errors to targets clipped to the bounds, in units of the width, summed."""
        # In units of the width: errors keep their size where rewards are large.
        goal = (torch.minimum(torch.maximum(y, self.low), self.high) - self.centre) / self.width
        with self.critic.dropping_out(self.generator):
            out = self.critic(x).squeeze(-1)
        return (out - goal).square().mean(-1).sum()

    @torch.no_grad()
    def update_targets(self) -> None:
        """Polyak update."""
        ours: list[Tensor] = list(self.target.parameters())
        theirs: list[Tensor] = list(self.critic.parameters())
        torch._foreach_lerp_(ours, theirs, self.target_rate)
