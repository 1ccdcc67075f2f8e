"""Gaussian distributions over targets."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag(exp(2 log_std))). Every value is summed over the n target dimensions."""

    mean: Float[Tensor, "*s n"]
    log_std: Float[Tensor, "*s n"]

    @property
    def std(self) -> Float[Tensor, "*s n"]:
        return self.log_std.exp()

    @property
    def scale_tril(self) -> Float[Tensor, "*s n n"]:
        """L with covariance = L L^T."""
        return torch.diag_embed(self.std)

    def log_prob(self, y: Float[Tensor, "*t n"]) -> Float[Tensor, "*u"]:
        z = (y - self.mean) * torch.exp(-self.log_std)
        n = self.mean.shape[-1]
        return -0.5 * z.square().sum(-1) - self.log_std.sum(-1) - 0.5 * n * math.log(2 * math.pi)

    def log_density(self, y: Float[Tensor, "*t n"]) -> Float[Tensor, "*u n"]:
        """Of each dimension alone; log_prob is their sum."""
        z = (y - self.mean) * torch.exp(-self.log_std)
        return -0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)

    def entropy(self) -> Float[Tensor, "*s"]:
        n = self.mean.shape[-1]
        return self.log_std.sum(-1) + 0.5 * n * math.log(2 * math.pi * math.e)

    def rsample(self, noise: Float[Tensor, "*t n"]) -> Float[Tensor, "*u n"]:
        """Pathwise samples mean + std * noise, for standard normal noise (axes broadcast)."""
        return self.mean + self.std * noise

    def sample(self, noise: Float[Tensor, "*t n"]) -> Float[Tensor, "*u n"]:
        """The same samples, held fixed."""
        return self.rsample(noise).detach()

    def noise(self, samples: int, generator: torch.Generator) -> Float[Tensor, "g *s n"]:
        """Standard normal noise of so many samples of each."""
        return _standard_normal(samples, self.mean, generator)


@dataclass(frozen=True)
class FullGaussian:
    """N(mean, L L^T) with L = scale_tril, lower triangular with a positive diagonal."""

    mean: Float[Tensor, "*s n"]
    scale_tril: Float[Tensor, "*s n n"]

    @property
    def std(self) -> Float[Tensor, "*s n"]:
        """Marginal standard deviation of each dimension."""
        return self.scale_tril.square().sum(-1).sqrt()

    def log_prob(self, y: Float[Tensor, "*t n"]) -> Float[Tensor, "*u"]:
        diff = (y - self.mean).unsqueeze(-1)
        z = torch.linalg.solve_triangular(self.scale_tril, diff, upper=False).squeeze(-1)
        n = self.mean.shape[-1]
        return -0.5 * z.square().sum(-1) - self._half_logdet() - 0.5 * n * math.log(2 * math.pi)

    def entropy(self) -> Float[Tensor, "*s"]:
        n = self.mean.shape[-1]
        return self._half_logdet() + 0.5 * n * math.log(2 * math.pi * math.e)

    def rsample(self, noise: Float[Tensor, "*t n"]) -> Float[Tensor, "*u n"]:
        """Pathwise samples mean + L noise, for standard normal noise (leading axes broadcast)."""
        return self.mean + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def sample(self, noise: Float[Tensor, "*t n"]) -> Float[Tensor, "*u n"]:
        """The same samples, held fixed."""
        return self.rsample(noise).detach()

    def noise(self, samples: int, generator: torch.Generator) -> Float[Tensor, "g *s n"]:
        """Standard normal noise of so many samples of each."""
        return _standard_normal(samples, self.mean, generator)

    def _half_logdet(self) -> Float[Tensor, "*s"]:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


Gaussian = DiagonalGaussian | FullGaussian


def _standard_normal(samples: int, like: Tensor, generator: torch.Generator) -> Tensor:
    shape = (samples, *like.shape)
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
