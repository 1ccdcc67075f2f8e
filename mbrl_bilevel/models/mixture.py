"""Mixtures of Gaussians of each target: density, energy score, samples, and a network of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.networks import EnsembleMLP
from mbrl_bilevel.models.soft_bound import soft_bound


@dataclass(frozen=True)
class Mixture:
    """p(y) = sum_k share_k N(y; mean_k, exp(log_std_k)^2) of single numbers, whatever their axes.

    The three tensors are [*s, K]. Targets of one row stand on one of the axes *s and are
    independent given the input, so that every method returns one number per target.
    """

    log_share: Float[Tensor, "*s k"]
    mean: Float[Tensor, "*s k"]
    log_std: Float[Tensor, "*s k"]

    def log_prob(self, y: Float[Tensor, "*t"]) -> Float[Tensor, "*u"]:
        """log p(y), of the broadcast of y's axes and the mixture's."""
        z = (y.unsqueeze(-1) - self.mean) * torch.exp(-self.log_std)
        constant = self.log_share - self.log_std - 0.5 * math.log(2 * math.pi)
        return (constant - 0.5 * z.square()).logsumexp(-1)

    def moments(self) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s"]]:
        """E[y] and Var[y]."""
        mean = (self.log_share.exp() * self.mean).sum(-1)
        within = (self.log_share.exp() * (2 * self.log_std).exp()).sum(-1)
        return mean, within + self.between()

    def between(self) -> Float[Tensor, "*s"]:
        """The part of the variance that lies between the components' means: 0 where they agree."""
        share = self.log_share.exp()
        centre = (share * self.mean).sum(-1, keepdim=True)
        return (share * (self.mean - centre).square()).sum(-1)

    def distance(self, other: "Mixture") -> Float[Tensor, "*s"]:
        """E|a - b| for independent a ~ self and b ~ other (Grimit et al. 2006)."""
        shift = self.mean.unsqueeze(-1) - other.mean.unsqueeze(-2)
        variance = (2 * self.log_std).exp().unsqueeze(-1) + (2 * other.log_std).exp().unsqueeze(-2)
        share = (self.log_share.unsqueeze(-1) + other.log_share.unsqueeze(-2)).exp()
        return (share * _absolute(shift, variance.sqrt())).sum((-2, -1))

    def energy_score(self, y: Float[Tensor, "*t"]) -> Float[Tensor, "*u"]:
        """E|a - y| - E|a - b| / 2 for a, b ~ self: the CRPS of one number, least at the truth.

        In the units of y; in closed form (Grimit et al. 2006, eq. 6).
        """
        each = _absolute(y.unsqueeze(-1) - self.mean, self.log_std.exp())
        return (self.log_share.exp() * each).sum(-1) - 0.5 * self.distance(self)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "g *s"]:
        """Draws held fixed: no gradient passes through them, as none passes through a choice."""
        shape = (count, *self.mean.shape[:-1])
        edges = self.log_share.exp().cumsum(-1)[..., :-1]
        dtype, device = edges.dtype, edges.device
        u = torch.rand(*shape, generator=generator, dtype=dtype, device=device)
        noise = torch.randn(*shape, generator=generator, dtype=dtype, device=device)
        chosen = (u.unsqueeze(-1) >= edges).sum(-1, keepdim=True)
        mean, std = (
            part.expand(*shape, -1).gather(-1, chosen).squeeze(-1)
            for part in (self.mean, self.log_std.exp())
        )
        return mean + std * noise

    def pooled(self) -> "Mixture":
        """The equal mixture of the members on the leading axis: [E, *s, K] to [*s, E K]."""
        members = self.mean.shape[0]
        log_share, mean, log_std = (
            part.movedim(0, -2).flatten(-2) for part in (self.log_share, self.mean, self.log_std)
        )
        return Mixture(log_share - math.log(members), mean, log_std)


def _absolute(mean: Float[Tensor, "*s"], std: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """E|N(mean, std^2)| = mean (2 Phi(z) - 1) + 2 std phi(z) at z = mean / std, for std > 0."""
    z = mean / std
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return mean * torch.erf(z / math.sqrt(2)) + 2 * std * density


class MixtureEnsemble(nn.Module):
    """E networks, each predicting a mixture of K Gaussians of each of n standardised targets.

    The heads share a trunk: K log shares up to a constant, K means and K log deviations bounded to
    `log_std_bounds` per target. One component is the Gaussian of `GaussianEnsemble`.

    Raises:
        InputError: fewer than one component or target.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        components: int,
        members: int = 3,
        hidden: Sequence[int] = (200, 200, 200),
        log_std_bounds: tuple[float, float] = (-10.0, 2.0),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if components < 1 or outputs < 1:
            raise InputError(
                f"a mixture of {components} components of {outputs} targets: each number must be "
                "at least 1"
            )
        self.inputs, self.outputs, self.members = inputs, outputs, members
        self.components, self.log_std_bounds = components, log_std_bounds
        heads = 3 * components * outputs
        self.network = EnsembleMLP(members, inputs, hidden, heads, generator)

    def forward(self, x: Float[Tensor, "*e b i"]) -> Mixture:
        """The members' mixtures, tensors [E, B, n, K]."""
        heads = self.network(x).unflatten(-1, (3, self.outputs, self.components))
        logits, mean, log_std = heads.unbind(-3)
        bounded = soft_bound(log_std, *self.log_std_bounds)
        return Mixture(logits.log_softmax(-1), mean, bounded)
