"""An ensemble whose noise has a network of its own, which the fit of the means never moves."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.distributions import DiagonalGaussian, Gaussian
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.networks import EnsembleLinear, EnsembleMLP
from mbrl_bilevel.models.settings import NetworkKind
from mbrl_bilevel.models.soft_bound import rest, soft_bound


class NoiseNetwork(EnsembleMLP):
    """log s(x) from a perceptron, bounded."""

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

    def hold_std(self, held: Bool[Tensor, "m"]) -> None:
        """Holds these deviations at 1, and no other."""
        head = self.layers[-1]
        assert isinstance(head, EnsembleLinear)
        rest(head.weight, head.bias[:, 0], held & ~self.held, self.bounds)
        self.held = held

    def log_std(self, x: Float[Tensor, "*e b i"]) -> Float[Tensor, "m b n"]:
        """log s of the targets that are predicted."""
        return self._bounded(self(x))

    def _bounded(self, heads: Float[Tensor, "*s m"]) -> Float[Tensor, "*s k"]:
        heads = torch.where(self.held, heads.detach(), heads)
        return soft_bound(self._predicted(heads), *self.bounds)

    def _predicted(self, heads: Float[Tensor, "*s m"]) -> Float[Tensor, "*s k"]:
        return heads if len(self.informative) == self.heads else heads[..., self.informative]


class SeparateNoiseEnsemble(GaussianEnsemble):
    """N(mu(x), s(x)^2) per dimension, mu by networks of `hidden` units, s by a network beside them.

    The `side` network has the first two hidden layers' units. An outer level learns one for all
    members, on rows that none of them was fitted to, and hands copies over by `adopt`.
    """

    kind: ClassVar[NetworkKind] = "separate_noise"
    side: NoiseNetwork

    def _build(self, generator: torch.Generator | None) -> None:
        self._check()
        self.network = self._mean_network(generator)
        self.side = self._side(self.members, generator).requires_grad_(False)

    def _check(self) -> None:
        what = self.kind.replace("_", " ")
        if self.covariance != "diagonal":
            raise InputError(
                f"a model of {what} goes with a diagonal covariance; choose another objective for "
                "a full one, such as residual_reward"
            )
        if self.noise == "constant":
            raise InputError(
                f"a model of {what} has noise that is a function of the input; choose --noise "
                "input, or another objective, such as residual_reward"
            )

    def _mean_network(self, generator: torch.Generator | None) -> EnsembleMLP:
        return EnsembleMLP(
            self.members,
            self.inputs,
            self.hidden,
            self.heads,
            generator,
            layer_norm=self.layer_norm,
            dropout=self.dropout,
        )

    def side_network(self, members: int, generator: torch.Generator | None) -> NoiseNetwork:
        """A network for the deviation, of the first two hidden layers' units."""
        side = self._side(members, generator)
        side.informative = self.informative
        side.hold_std(self.held)
        return side

    def _side(self, members: int, generator: torch.Generator | None) -> NoiseNetwork:
        return NoiseNetwork(
            members, self.inputs, self.hidden[:2], self.heads, self.log_std_bounds, generator
        )

    @property
    def parameter_count(self) -> int:
        """Of the means of every member, and of the side network, which they share, once."""
        side = sum(p.numel() for p in self.side.parameters())
        return super().parameter_count - side + side // self.members

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

    def forward(self, x: Float[Tensor, "*e b i"]) -> Gaussian:
        return self._recalibrated(DiagonalGaussian(self.means(x)[0], self.side.log_std(x)))

    def means(self, x: Float[Tensor, "*e b i"]) -> tuple[Float[Tensor, "m b n"], ...]:
        """The means of every member, [E, B, n] each: here one."""
        return (self._predicted(self.network(x)),)

    def adopt(self, side: NoiseNetwork) -> None:
        """Takes over what the only member of `side` has learned."""
        self.side.copy_from(side)
