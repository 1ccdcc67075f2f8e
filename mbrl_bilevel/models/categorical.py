"""Categorical distributions over classes, and the network ensemble that predicts them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.networks import EnsembleMLP


@dataclass(frozen=True)
class Categorical:
    """p_k proportional to exp(logits_k) over k classes."""

    logits: Float[Tensor, "*s k"]

    @property
    def log_probs(self) -> Float[Tensor, "*s k"]:
        return self.logits.log_softmax(-1)

    @property
    def probs(self) -> Float[Tensor, "*s k"]:
        return self.logits.softmax(-1)

    @property
    def classes(self) -> int:
        return self.logits.shape[-1]

    def log_prob(self, y: Int[Tensor, "*t"]) -> Float[Tensor, "*u"]:
        """Log-probability of classes 0 ... k - 1 (leading axes broadcast)."""
        log_probs = self.log_probs
        lead = torch.broadcast_shapes(y.shape, log_probs.shape[:-1])
        index = y.expand(lead).unsqueeze(-1)
        return log_probs.expand(*lead, self.classes).gather(-1, index).squeeze(-1)

    def entropy(self) -> Float[Tensor, "*s"]:
        return -(self.probs * self.log_probs).sum(-1)

    def sample(self, noise: Float[Tensor, "*t k"]) -> Int[Tensor, "*u"]:
        """Classes argmax(logits + noise) for standard Gumbel noise (leading axes broadcast)."""
        return (self.logits + noise).argmax(-1)

    def noise(self, samples: int, generator: torch.Generator) -> Float[Tensor, "g *s k"]:
        """Standard Gumbel noise of so many samples of each."""
        like = self.logits
        return gumbel_noise((samples, *like.shape), generator, like.device, like.dtype)

    def rsample(self, noise: Float[Tensor, "*t k"]) -> Tensor:
        """Not offered.

        Raises:
            InputError: always.
        """
        raise InputError(
            "estimator 'reparameterized': classes have no pathwise derivative; "
            "use 'exact' or 'score_function' for a categorical model"
        )


def gumbel_noise(
    shape: Sequence[int],
    generator: torch.Generator,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*t k"]:
    """Standard Gumbel noise, -log of standard exponentials."""
    exponential = torch.empty(*shape, device=device, dtype=dtype)
    return -exponential.exponential_(generator=generator).log()


class CategoricalEnsemble(nn.Module):
    """E networks, each predicting the logits of k classes; linear in x with `hidden=()`.

    One-hot inputs and `hidden=()` make a table of free logits.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        *,
        members: int = 5,
        hidden: Sequence[int] = (200, 200, 200),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if members < 1 or classes < 1 or inputs < 1:
            raise InputError(
                f"an ensemble of {members} members from {inputs} inputs to {classes} classes: "
                "each number must be at least 1"
            )
        self.inputs, self.classes, self.members = inputs, classes, members
        self.hidden = tuple(hidden)
        self.network = EnsembleMLP(members, inputs, hidden, classes, generator)

    def forward(self, x: Float[Tensor, "*e b i"]) -> Categorical:
        """The members' predictions [E, B, k], from x [B, i] for all or [E, B, i] for each."""
        return Categorical(self.network(x))
