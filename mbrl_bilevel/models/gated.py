"""An ensemble whose every member blends two means and takes its noise from a network apart."""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import DiagonalGaussian, Gaussian, GaussianEnsemble, soft_bound
from mbrl_bilevel.models.networks import EnsembleMLP


class GatedEnsemble(GaussianEnsemble):
    """N(g(x) m1(x) + (1 - g(x)) m2(x), s(x)^2) per dimension, for a diagonal covariance.

    m1 and m2 are networks of `hidden` units, meant for two weightings of the same data. The gate g
    in (0, 1) and the deviation s come from the `side` network, which the fit of m1 and m2 never
    moves: an outer level learns one for all members and hands copies over by `adopt`.
    """

    def _build(self, generator: torch.Generator | None) -> None:
        if self.covariance != "diagonal":
            raise InputError(
                "gated weights (--weights learned) go with a diagonal covariance; "
                "choose --weights power or none for a full one"
            )
        self.network = EnsembleMLP(self.members, self.inputs, self.hidden, self.outputs, generator)
        self.second = EnsembleMLP(self.members, self.inputs, self.hidden, self.outputs, generator)
        self.side = self.side_network(self.members, generator).requires_grad_(False)

    def side_network(self, members: int, generator: torch.Generator | None) -> EnsembleMLP:
        """A network for gate and deviation: the first two hidden layers' units, 2 n outputs."""
        return EnsembleMLP(members, self.inputs, self.hidden[:2], 2 * self.outputs, generator)

    def means(
        self, x: Float[Tensor, "*e b i"]
    ) -> tuple[Float[Tensor, "m b n"], Float[Tensor, "m b n"]]:
        """Both means of every member, [E, B, n] each."""
        return self.network(x), self.second(x)

    def read_side(
        self, out: Float[Tensor, "*s k"]
    ) -> tuple[Float[Tensor, "*s n"], Float[Tensor, "*s n"]]:
        """log s and g from the k = 2 n outputs of a side network."""
        log_std, gate = out.chunk(2, -1)
        return soft_bound(log_std, *self.log_std_bounds), torch.sigmoid(gate)

    def forward(self, x: Float[Tensor, "*e b i"]) -> Gaussian:
        first, second = self.means(x)
        log_std, gate = self.read_side(self.side(x))
        return DiagonalGaussian(torch.lerp(second, first, gate), log_std)

    def adopt(self, side: EnsembleMLP) -> None:
        """Takes over the gate and the deviation that the only member of `side` has learned."""
        self.side.copy_from(side)
