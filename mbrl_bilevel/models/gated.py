"""An ensemble whose every member blends two means and takes its noise from a network apart."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import DiagonalGaussian, Gaussian, GaussianEnsemble, soft_bound
from mbrl_bilevel.models.networks import EnsembleLinear, EnsembleMLP

TYPICAL = 2.0  # minus the usual log deviation of standardised targets: centres the gate's inputs


class NoiseAndGate(EnsembleMLP):
    """log s(x) from a perceptron, and a gate that reads what the perceptron knows of the noise.

    The gate's logits are linear in log s(x) and in the last hidden layer, and leave both as they
    are. A gate that may shape hidden layers of its own fits the few large residuals that decide a
    squared error, and was worse on new episodes than no gate; one that reads log s(x)
    alone misses what tells the means apart beside the noise.
    """

    def __init__(
        self,
        members: int,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        bounds: tuple[float, float],
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(members, inputs, hidden, outputs, generator)
        self.bounds = bounds
        self.gate = EnsembleLinear(members, hidden[-1] + outputs, outputs, generator)
        torch.nn.init.zeros_(self.gate.weight)  # at first both means count the same

    def log_std(self, x: Float[Tensor, "*e b i"]) -> Float[Tensor, "m b n"]:
        """log s alone."""
        return soft_bound(self(x), *self.bounds)

    def noise_and_gate(
        self, x: Float[Tensor, "*e b i"]
    ) -> tuple[Float[Tensor, "m b n"], Float[Tensor, "m b n"]]:
        """log s, and g in (0, 1)."""
        features = self.features(x)
        log_std = soft_bound(self.layers[-1](features), *self.bounds)
        read = torch.cat([features, log_std + TYPICAL], -1).detach()
        return log_std, torch.sigmoid(self.gate(read))

    def select(self, members: Int[Tensor, "k"]) -> "NoiseAndGate":
        chosen = super().select(members)
        assert isinstance(chosen, NoiseAndGate)
        chosen._modules["gate"] = self.gate.select(members)
        return chosen


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

    def side_network(self, members: int, generator: torch.Generator | None) -> NoiseAndGate:
        """A network for deviation and gate, of the first two hidden layers' units."""
        return NoiseAndGate(
            members, self.inputs, self.hidden[:2], self.outputs, self.log_std_bounds, generator
        )

    def means(
        self, x: Float[Tensor, "*e b i"]
    ) -> tuple[Float[Tensor, "m b n"], Float[Tensor, "m b n"]]:
        """Both means of every member, [E, B, n] each."""
        return self.network(x), self.second(x)

    def forward(self, x: Float[Tensor, "*e b i"]) -> Gaussian:
        first, second = self.means(x)
        log_std, gate = self.side.noise_and_gate(x)
        return DiagonalGaussian(torch.lerp(second, first, gate), log_std)

    def adopt(self, side: NoiseAndGate) -> None:
        """Takes over the gate and the deviation that the only member of `side` has learned."""
        self.side.copy_from(side)
