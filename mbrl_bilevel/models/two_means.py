"""An ensemble of two means a member, blended by a gate; the noise has a network of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import DiagonalGaussian, Gaussian, GaussianEnsemble
from mbrl_bilevel.models.networks import EnsembleLinear, EnsembleMLP
from mbrl_bilevel.models.settings import NetworkKind
from mbrl_bilevel.models.soft_bound import rest, soft_bound

TYPICAL = 2.0  # minus the usual log deviation of standardised targets: centres the gate's inputs


class NoiseAndGate(EnsembleMLP):
    """log s(x) from a perceptron, and a gate that reads what the perceptron knows of the noise.

    The gate's logits are linear in log s(x) and in the last hidden layer, and leave both as they
    are. A gate that may shape hidden layers of its own fits the few large residuals that decide a
    squared error, and was worse on new episodes than no gate; one that reads log s(x)
    alone misses what tells the means apart beside the noise.
    """

    informative: Tensor  # the targets that are predicted
    held: Tensor  # [m], whose deviation no loss moves

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
        self.bounds, self.heads = bounds, outputs
        self.register_buffer("informative", torch.arange(outputs), persistent=False)
        self.register_buffer("held", torch.zeros(outputs, dtype=torch.bool), persistent=False)
        last = [inputs, *hidden][-1]  # without hidden layers the gate reads the input
        self.gate = EnsembleLinear(members, last + outputs, outputs, generator)
        torch.nn.init.zeros_(self.gate.weight)  # at first both means count the same

    def hold_std(self, held: Bool[Tensor, "m"]) -> None:
        """Holds these deviations at 1, and no other."""
        head = self.layers[-1]
        assert isinstance(head, EnsembleLinear)
        rest(head.weight, head.bias[:, 0], held & ~self.held, self.bounds)
        self.held = held

    def log_std(self, x: Float[Tensor, "*e b i"]) -> Float[Tensor, "m b n"]:
        """log s alone."""
        return self._bounded(self(x))

    def _bounded(self, heads: Float[Tensor, "*s m"]) -> Float[Tensor, "*s k"]:
        heads = torch.where(self.held, heads.detach(), heads)
        return soft_bound(self._predicted(heads), *self.bounds)

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

    def _predicted(self, heads: Float[Tensor, "*s m"]) -> Float[Tensor, "*s k"]:
        return heads if len(self.informative) == self.heads else heads[..., self.informative]

    def select(self, members: Int[Tensor, "k"]) -> "NoiseAndGate":
        chosen = super().select(members)
        assert isinstance(chosen, NoiseAndGate)
        chosen._modules["gate"] = self.gate.select(members)
        return chosen


class TwoMeanEnsemble(GaussianEnsemble):
    """N(g(x) m1(x) + (1 - g(x)) m2(x), s(x)^2) per dimension, for a diagonal covariance.

    m1 and m2 are networks of `hidden` units, meant for two weightings of the same data. The gate g
    in (0, 1) and the deviation s come from the `side` network, which the fit of m1 and m2 never
    moves: an outer level learns one for all members and hands copies over by `adopt`.
    """

    kind: ClassVar[NetworkKind] = "two_means"

    def _build(self, generator: torch.Generator | None) -> None:
        if self.covariance != "diagonal":
            raise InputError(
                "a model of two means goes with a diagonal covariance; choose another objective "
                "for a full one, such as residual_reward"
            )
        if self.noise == "constant":
            raise InputError(
                "a model of two means has noise that its gate reads: a function of the input; "
                "choose --noise input, or another objective, such as residual_reward"
            )
        self.network, self.second = (
            EnsembleMLP(
                self.members,
                self.inputs,
                self.hidden,
                self.heads,
                generator,
                layer_norm=self.layer_norm,
                dropout=self.dropout,
            )
            for _ in range(2)
        )
        self.side = self._side(self.members, generator).requires_grad_(False)

    def side_network(self, members: int, generator: torch.Generator | None) -> NoiseAndGate:
        """A network for deviation and gate, of the first two hidden layers' units."""
        side = self._side(members, generator)
        side.informative = self.informative
        side.hold_std(self.held)
        return side

    def _side(self, members: int, generator: torch.Generator | None) -> NoiseAndGate:
        return NoiseAndGate(
            members, self.inputs, self.hidden[:2], self.heads, self.log_std_bounds, generator
        )

    def restrict(self, informative: Int[Tensor, "k"]) -> None:
        super().restrict(informative)
        self.side.informative, self.side.held = informative, self.held

    def hold_std(self, targets: Int[Tensor, "k"]) -> None:
        super().hold_std(targets)
        self.side.hold_std(self.held)

    def _std_heads(self) -> tuple[Float[Tensor, "e h m"], Float[Tensor, "e m"]]:
        head = self.side.layers[-1]
        assert isinstance(head, EnsembleLinear)
        return head.weight, head.bias[:, 0]

    def means(
        self, x: Float[Tensor, "*e b i"]
    ) -> tuple[Float[Tensor, "m b n"], Float[Tensor, "m b n"]]:
        """Both means of every member, [E, B, n] each."""
        return self._predicted(self.network(x)), self._predicted(self.second(x))

    def forward(self, x: Float[Tensor, "*e b i"]) -> Gaussian:
        first, second = self.means(x)
        log_std, gate = self.side.noise_and_gate(x)
        return DiagonalGaussian(torch.lerp(second, first, gate), log_std)

    @contextmanager
    def dropping_out(self, generator: torch.Generator) -> Iterator[None]:
        """Dropout is on in both means inside of this context."""
        with self.network.dropping_out(generator), self.second.dropping_out(generator):
            yield

    def adopt(self, side: NoiseAndGate) -> None:
        """Takes over the gate and the deviation that the only member of `side` has learned."""
        self.side.copy_from(side)
