"""The network ensemble that predicts Gaussian distributions over targets."""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.distributions import DiagonalGaussian, FullGaussian, Gaussian
from mbrl_bilevel.models.networks import EnsembleLinear, EnsembleMLP
from mbrl_bilevel.models.settings import Covariance, NetworkKind, Noise
from mbrl_bilevel.models.soft_bound import rest, soft_bound, soft_bound_inverse

# Adam moves a parameter that stands alone by one learning rate a step: too slow for a deviation
# that has to follow the residuals of a whole network.
NOISE_GAIN = 10.0


class GaussianEnsemble(nn.Module):
    """E networks, each predicting N(mu(x), S(x)) of a standardised target y of n dimensions.

    The heads share a trunk: n means, n log standard deviations bounded to `log_std_bounds`, and
    with `covariance="full"` the n (n - 1) / 2 entries under the diagonal of scale_tril, in units
    of their row's deviation. After `restrict` only the named targets are predicted, and the heads
    of the others rest. After `hold_std` the deviations of the named targets are the same for every
    input, and only `set_std` moves them.

    Args:
        noise: "input": log deviations are heads of the network; "constant": one learned log
            deviation per member and target (diagonal covariance only).
        layer_norm, dropout: of the hidden layers, see `EnsembleMLP`.

    Raises:
        InputError: sizes below 1, bounds in the wrong order, constant noise of a full covariance.
    """

    kind: ClassVar[NetworkKind] = "gaussian"
    informative: Tensor
    held: Tensor  # [m], whose deviation no loss moves
    recalibration: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        members: int = 5,
        hidden: Sequence[int] = (200, 200, 200),
        covariance: Covariance = "diagonal",
        log_std_bounds: tuple[float, float] = (-10.0, 2.0),
        noise: Noise = "input",
        layer_norm: bool = False,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if noise == "constant" and covariance != "diagonal":
            raise InputError(
                "constant noise needs a diagonal covariance; for a full one choose noise 'input'"
            )
        if members < 1 or outputs < 1 or inputs < 1:
            raise InputError(
                f"an ensemble of {members} members from {inputs} inputs to {outputs} outputs: "
                "each number must be at least 1"
            )
        if not log_std_bounds[0] < log_std_bounds[1]:
            raise InputError(f"log_std_bounds {log_std_bounds}: the lower must be below the upper")
        self.inputs, self.heads, self.members = inputs, outputs, members
        self.hidden, self.covariance = tuple(hidden), covariance
        self.log_std_bounds = log_std_bounds
        self.noise, self.layer_norm, self.dropout = noise, layer_norm, dropout
        self._build(generator)
        self.register_buffer("informative", torch.arange(outputs), persistent=False)
        self.register_buffer("held", torch.zeros(outputs, dtype=torch.bool), persistent=False)
        # Log of a factor of each deviation, fitted afterwards; a fit begins by setting it to 0.
        self.register_buffer("recalibration", torch.zeros(outputs))
        self.held_share = 0.0

    @property
    def parameter_count(self) -> int:
        """Numbers that tell the predictions of all members, those that they share counted once."""
        return sum(p.numel() for p in self.parameters())

    @property
    def outputs(self) -> int:
        """How many targets are predicted."""
        return len(self.informative)

    def restrict(self, informative: Int[Tensor, "k"]) -> None:
        """Predicts only these of the targets from now on, in this order."""
        self.informative = informative
        if (
            self.held.is_meta
        ):  # of a model that is loaded, whose weights say what its deviations are
            self.held = torch.zeros(self.heads, dtype=torch.bool, device=informative.device)

    @torch.no_grad()
    def hold_std(self, targets: Int[Tensor, "k"]) -> None:
        """Holds the deviations of these targets, and of no other: at 1 to begin with.

        Targets are numbered as by `restrict`.
        """
        held = torch.zeros_like(self.held)
        held[targets] = True
        weight, bias = self._std_heads()
        rest(weight, bias, held & ~self.held, self.log_std_bounds)
        bias[:, held & ~self.held] /= self._gain
        self.held, self.held_share = held, len(targets) / self.outputs

    def _log_std(self, heads: Float[Tensor, "*s m"]) -> Float[Tensor, "*s k"]:
        if self.held_share:
            heads = torch.where(self.held, heads.detach(), heads)
        return soft_bound(self._predicted(heads), *self.log_std_bounds)

    def _std_heads(self) -> tuple[Float[Tensor, "e h m"], Float[Tensor, "e m"]]:
        """Weights and biases of the heads of log deviations, to be written to."""
        if self.noise == "constant":  # a head without inputs
            return self.log_std.new_empty(self.members, 0, self.heads), self.log_std.detach()[:, 0]
        head, n = self.network.layers[-1], self.heads
        assert isinstance(head, EnsembleLinear)
        return head.weight[..., n : 2 * n], head.bias[:, 0, n : 2 * n]

    @property
    def _gain(self) -> float:
        return NOISE_GAIN if self.noise == "constant" else 1.0

    def _predicted(self, heads: Float[Tensor, "*s m"]) -> Float[Tensor, "*s k"]:
        return heads if self.outputs == self.heads else heads[..., self.informative]

    def _build(self, generator: torch.Generator | None) -> None:
        n = self.heads
        heads = 2 * n + (n * (n - 1) // 2 if self.covariance == "full" else 0)
        if self.noise == "constant":
            heads = n
            self.log_std = nn.Parameter(torch.zeros(self.members, 1, n))
        self.network = EnsembleMLP(
            self.members,
            self.inputs,
            self.hidden,
            heads,
            generator,
            layer_norm=self.layer_norm,
            dropout=self.dropout,
        )

    def forward(self, x: Float[Tensor, "*e b i"]) -> Gaussian:
        """The members' predictions [E, B, n], from one input [B, i] or an input each [E, B, i]."""
        return self._distribution(self.network(x))

    def with_noise_apart(self, x: Float[Tensor, "*e b i"]) -> Gaussian:
        """The same prediction; no gradient of its covariance reaches the hidden layers."""
        n, head, features = self.heads, self.network.layers[-1], self.network.features(x)
        out = torch.cat([head(features)[..., :n], head(features.detach())[..., n:]], -1)
        return self._distribution(out)

    def _distribution(self, out: Float[Tensor, "e b h"]) -> Gaussian:
        n = self.heads
        if self.noise == "constant":
            log_std = self._log_std(NOISE_GAIN * self.log_std)
            mean = self._predicted(out)
            return self._recalibrated(DiagonalGaussian(mean, log_std.expand_as(mean)))
        mean, log_std = self._predicted(out[..., :n]), self._log_std(out[..., n : 2 * n])
        if self.covariance == "diagonal":
            return self._recalibrated(DiagonalGaussian(mean, log_std))
        unit = torch.diag_embed(torch.ones_like(out[..., :n]))
        rows, columns = torch.tril_indices(n, n, -1, device=out.device)
        unit[..., rows, columns] = out[..., 2 * n :]
        unit = self._predicted(self._predicted(unit).mT).mT
        return self._recalibrated(FullGaussian(mean, log_std.exp().unsqueeze(-1) * unit))

    def _recalibrated(self, gaussian: Gaussian) -> Gaussian:
        """With each deviation times its factor, which is 1 until `recalibrate` says otherwise."""
        log_factor = self._predicted(self.recalibration)
        if isinstance(gaussian, DiagonalGaussian):
            return DiagonalGaussian(gaussian.mean, gaussian.log_std + log_factor)
        return FullGaussian(gaussian.mean, log_factor.exp().unsqueeze(-1) * gaussian.scale_tril)

    @torch.no_grad()
    def recalibrate(self, factor: Float[Tensor, "n"] | float) -> None:
        """Every member's deviations are those that it learned times `factor` from now on."""
        factor = torch.as_tensor(factor).to(self.recalibration)
        self.recalibration[self.informative] = factor.log()

    def dropping_out(self, generator: torch.Generator) -> AbstractContextManager[None]:
        """Dropout is on inside of this context, as in training; predictions are without."""
        return self.network.dropping_out(generator)

    def select(self, members: Int[Tensor, "k"]) -> "GaussianEnsemble":
        """An ensemble of copies of the named members, in that order."""
        if torch.equal(members.cpu(), torch.arange(self.members)):
            return self
        chosen = copy.copy(self)
        chosen._modules = {
            name: network.select(members)
            for name, network in self._modules.items()
            if isinstance(network, EnsembleMLP)
        }
        if self.noise == "constant":
            chosen._parameters = {"log_std": nn.Parameter(self.log_std.detach()[members])}
        chosen.members = len(members)
        return chosen

    @torch.no_grad()
    def set_std(self, std: Float[Tensor, "e n"], *, held_only: bool = False) -> None:
        """Makes member e predict the same deviations std[e] everywhere (clamped to the bounds).

        The way to a likelihood for a model whose training says nothing of its noise: plug in the
        deviation of held-out residuals. `held_only` leaves the targets that are not held alone.
        """
        low, high = self.log_std_bounds
        margin = 1e-3 * (high - low)
        log_std = std.log().clamp(low + margin, high - margin)
        weight, bias = self._std_heads()
        chosen = self.held[self.informative] if held_only else torch.ones_like(log_std[0]).bool()
        heads = self.informative[chosen]
        weight[..., heads] = 0.0
        bias[..., heads] = soft_bound_inverse(log_std[..., chosen], low, high) / self._gain

    @torch.no_grad()
    def widen_std(self, factor: Float[Tensor, "e n"]) -> None:
        """Multiplies member e's deviations by factor[e], wherever they are not near the bounds."""
        bias = self._std_heads()[1]
        bias[:, self.informative] += factor.log() / self._gain
