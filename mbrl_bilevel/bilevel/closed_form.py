"""Hypergradients of a Gaussian model under a Mahalanobis reward: no inner level is needed."""

import torch
from jaxtyping import Float
from torch import Tensor


def mahalanobis_gradient(
    U: Float[Tensor, "*b n n"], residual_covariance: Float[Tensor, "*b n n"], lam: float
) -> Float[Tensor, "*b n n"]:
    """dF/dU = S_res / lam - U^-1 / 2 (theory T6), of F(U) = tr(U S_res)/lam - logdet(U)/2 + const.

    `residual_covariance` is E[(y - mu)(y - mu)^T] on the outer data. For an input-dependent U(x)
    give U and the squared residuals of each sample, [b, n, n]; the result is each sample's own
    gradient, to be averaged over the batch. U enters as n^2 free numbers. It holds where the fitted
    mean does not depend on U.
    """
    return residual_covariance / lam - 0.5 * torch.linalg.inv(U)


def mahalanobis_value(
    U: Float[Tensor, "*b n n"], residual_covariance: Float[Tensor, "*b n n"], lam: float
) -> Float[Tensor, "*b"]:
    """F(U): outer negative log-likelihood at the inner optimum S = (lam/2) U^-1 (theory T3)."""
    n = U.shape[-1]
    fit = (U * residual_covariance).sum((-2, -1)) / lam
    constant = 0.5 * n * torch.log(torch.as_tensor(torch.pi * lam, dtype=U.dtype))
    return fit - 0.5 * torch.linalg.slogdet(U).logabsdet + constant.to(U.device)


def to_cholesky(
    gradient: Float[Tensor, "*b n n"], L: Float[Tensor, "*b n n"]
) -> Float[Tensor, "*b n n"]:
    """dF/dL = lower triangle of (G + G^T) L from G = dF/dU, for U = L L^T, L lower triangular."""
    return ((gradient + gradient.mT) @ L).tril()
