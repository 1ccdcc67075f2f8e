"""An ensemble of two means a member, blended by a gate; the noise has a network of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.models.distributions import DiagonalGaussian, Gaussian
from mbrl_bilevel.models.networks import EnsembleLinear
from mbrl_bilevel.models.separate_noise import NoiseNetwork, SeparateNoiseEnsemble
from mbrl_bilevel.models.settings import NetworkKind

TYPICAL = 2.0  # minus the usual log deviation of standardised targets: centres the gate's inputs


class NoiseAndGate(NoiseNetwork):
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
        super().__init__(members, inputs, hidden, outputs, bounds, generator)
        last = [inputs, *hidden][-1]  # without hidden layers the gate reads the input
        self.gate = EnsembleLinear(members, last + outputs, outputs, generator)
        torch.nn.init.zeros_(self.gate.weight)  # at first both means count the same

    def noise_and_gate(
        self, x: Float[Tensor, "*e b i"]
    ) -> tuple[Float[Tensor, "m b n"], Float[Tensor, "m b n"]]:
        """log s, and g in (0, 1)."""
        features = self.features(x)
        log_std = self._bounded(self.layers[-1](features))
        seen = log_std + TYPICAL
        if len(self.informative) < self.heads:  # the gate does not read heads that rest
            rest = log_std.new_zeros(*log_std.shape[:-1], self.heads)
            seen = rest.index_copy(-1, self.informative, seen)
        gate = self.gate(torch.cat([features, seen], -1).detach())
        return log_std, torch.sigmoid(self._predicted(gate))

    def select(self, members: Int[Tensor, "k"]) -> "NoiseAndGate":
        chosen = super().select(members)
        assert isinstance(chosen, NoiseAndGate)
        chosen._modules["gate"] = self.gate.select(members)
        return chosen


class TwoMeanEnsemble(SeparateNoiseEnsemble):
    """N(g(x) m1(x) + (1 - g(x)) m2(x), s(x)^2) per dimension, for a diagonal covariance.

    m1 and m2 are networks of `hidden` units, meant for two weightings of the same data. The gate g
    in (0, 1) and the deviation s come from the `side` network.
    """

    kind: ClassVar[NetworkKind] = "two_means"
    side: NoiseAndGate

    def _build(self, generator: torch.Generator | None) -> None:
        self._check()
        self.network, self.second = (self._mean_network(generator) for _ in range(2))
        self.side = self._side(self.members, generator).requires_grad_(False)

    def _side(self, members: int, generator: torch.Generator | None) -> NoiseAndGate:
        return NoiseAndGate(
            members, self.inputs, self.hidden[:2], self.heads, self.log_std_bounds, generator
        )

    def means(
        self, x: Float[Tensor, "*e b i"]
    ) -> tuple[Float[Tensor, "m b n"], Float[Tensor, "m b n"]]:
        """Both means of every member, [E, B, n] each."""
        return self._predicted(self.network(x)), self._predicted(self.second(x))

    def forward(self, x: Float[Tensor, "*e b i"]) -> Gaussian:
        first, second = self.means(x)
        log_std, gate = self.side.noise_and_gate(x)
        return self._recalibrated(DiagonalGaussian(torch.lerp(second, first, gate), log_std))

    @contextmanager
    def dropping_out(self, generator: torch.Generator) -> Iterator[None]:
        """Dropout is on in both means inside of this context."""
        with self.network.dropping_out(generator), self.second.dropping_out(generator):
            yield
