"""A quadratic reward plus a bounded network of errors, targets and inputs."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.networks import EnsembleMLP
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis


class NeuralReward(nn.Module):
    """r = -(y_hat - y)^T U (y_hat - y) + bound tanh(f(y_hat - y, y, x)), f a network (theory T9).

    A bounded reward alone would let the entropy drive the model's deviation to infinity; the
    quadratic base keeps the inner problem bounded. f starts at 0, so r starts at the base. The
    target density of the inner level changes by at most a factor exp(2 bound / lam). There is no
    closed-form expectation: use the sampled estimators.

    Args:
        base: the quadratic part; its parameters are learned too unless frozen.
        inputs: d, dimensions of x.
        bound: greatest size of the network's part, in units of reward.

    Raises:
        InputError: a bound that is not positive.
    """

    def __init__(
        self,
        base: Mahalanobis,
        inputs: int,
        *,
        hidden: Sequence[int] = (64, 64),
        bound: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not bound > 0:
            raise InputError(f"bound of a neural reward {bound}: must be above 0")
        self.base, self.inputs, self.bound = base, inputs, bound
        features = 2 * base.outputs + inputs
        self.network = EnsembleMLP(1, features, hidden, 1, generator).to(base.log_diagonal.dtype)
        for parameter in self.network.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, y_hat: Float[Tensor, "*g b n"], y: Float[Tensor, "*y b n"], x: Float[Tensor, "*x b d"]
    ) -> Float[Tensor, "*h b"]:
        """Rewards of generations y_hat [G, B, n] or [G, E, B, n]; leading axes broadcast.

        Raises:
            InputError: x of another width than `inputs`.
        """
        if x.shape[-1] != self.inputs:
            raise InputError(
                f"neural reward on {self.inputs} inputs was given {x.shape[-1]}; pass the model's"
            )
        quadratic = self.base(y_hat, y, x)
        lead = quadratic.shape
        parts = (y_hat - y, y, x)
        features = torch.cat([part.expand(*lead, part.shape[-1]) for part in parts], -1)
        score = self.network(features.reshape(1, -1, features.shape[-1])).reshape(lead)
        return quadratic + self.bound * torch.tanh(score)
