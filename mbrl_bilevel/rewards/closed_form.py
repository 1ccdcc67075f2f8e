"""Closed-form choices of U for Gaussian models (theory T3, T4, T6), from residual covariances.

`lam` is the entropy weight lambda, `covariance` the expected CONDITIONAL covariance of the target
given the input, that is, of the residuals of a fitted mean. The marginal covariance of the target
is right only where there is no input. Leading axes (members) are kept.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError

EntropyWeight = float | Float[Tensor, ""]
"""lambda, in units of reward a nat."""


def check_entropy_weight(lam: EntropyWeight) -> None:
    """Refuses a lambda that is not finite or not positive.

    Raises:
        InputError: it is.
    """
    value = float(lam.detach()) if isinstance(lam, Tensor) else lam
    if not (math.isfinite(value) and value > 0):
        raise InputError(
            f"entropy weight lam = {value}: must be a finite number above 0, "
            "or the model's covariance has no optimum"
        )


def check_positive_definite(
    matrix: Float[Tensor, "*e n n"], name: str, *, rounded_to: torch.dtype | None = None
) -> None:
    """Refuses a matrix, called `name`, that is not finite, symmetric and positive definite.

    Positive definite beyond the rounding of its entries (to the matrix's own type, or
    `rounded_to`): scaled to a unit diagonal, so that units do not matter, all eigenvalues are above
    4 n eps.

    Raises:
        InputError: it is not.
    """
    if not bool(torch.isfinite(matrix).all()):
        raise InputError(f"{name} holds entries that are not finite; check the data it comes from")
    scale = matrix.abs().amax()
    if not bool((matrix - matrix.mT).abs().amax() <= 1e-5 * scale):
        raise InputError(f"{name} is not symmetric; pass (M + M^T) / 2")
    diagonal = matrix.diagonal(dim1=-2, dim2=-1).double()
    if not bool((diagonal > 0).all()):
        raise InputError(
            f"{name} is not positive definite (diagonal entry {float(diagonal.amin()):.3g}); "
            "add a ridge or use more data"
        )
    unit = diagonal.rsqrt()
    scaled = unit.unsqueeze(-1) * matrix.double() * unit.unsqueeze(-2)
    smallest = float(torch.linalg.eigvalsh(0.5 * (scaled + scaled.mT)).amin())
    rounding = 4 * matrix.shape[-1] * torch.finfo(rounded_to or matrix.dtype).eps
    if not smallest > rounding:
        raise InputError(
            f"{name} is not positive definite (smallest eigenvalue {smallest:.3g}, scaled to a "
            f"unit diagonal; rounding alone gives up to {rounding:.1g}); "
            "add a ridge or use more data"
        )


def residual_covariance(residuals: Float[Tensor, "*e b n"]) -> Float[Tensor, "*e n n"]:
    """Sigma = E[(y - mu)(y - mu)^T], second moment of residuals of a fitted mean (theory T4).

    Not centred: a bias of the mean counts as noise. Where the mean is fitted, take residuals of
    data held out from that fit.

    Raises:
        InputError: no residuals.
    """
    if residuals.shape[-2] == 0:
        raise InputError("no residuals: a covariance needs at least one")
    return residuals.mT @ residuals / residuals.shape[-2]


def scalar_rule(covariance: Float[Tensor, "*e n n"], lam: EntropyWeight) -> Float[Tensor, "*e n n"]:
    """Best U among u I: u* = lam n / (2 tr Sigma) (theory T4)."""
    return ray_rule(torch.eye(covariance.shape[-1]).to(covariance), covariance, lam)


def diagonal_rule(
    covariance: Float[Tensor, "*e n n"], lam: EntropyWeight
) -> Float[Tensor, "*e n n"]:
    """Best diagonal U, right for every diagonal model: u_i* = lam / (2 Sigma_ii) (theory T4).

    Raises:
        InputError: a variance or lam that is not finite and positive.
    """
    check_entropy_weight(lam)
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    if not bool((torch.isfinite(variance) & (variance > 0)).all()):
        raise InputError(
            f"residual variance {float(variance.amin()):.3g}: each must be finite and above 0; "
            "drop constant target dimensions"
        )
    return torch.diag_embed(lam / (2 * variance))


def full_rule(
    covariance: Float[Tensor, "*e n n"],
    lam: EntropyWeight,
    *,
    ridge: float = 1e-6,
    diagonal_model: bool = False,
) -> Float[Tensor, "*e n n"]:
    """U* = (lam / 2) Sigma^-1, the outer optimum of a full-covariance model (theory T4).

    `ridge` times the mean variance is added to the diagonal of Sigma before inverting it, which is
    done in float64. A ridge below the rounding of Sigma's entries mends nothing: where dimensions
    may depend on one another, take residuals in float64.

    Raises:
        InputError: for a diagonal model, which would end at Var(y_i | all other y_j), too small;
            or a covariance that stays singular or indefinite in spite of the ridge.
    """
    check_entropy_weight(lam)
    n = covariance.shape[-1]
    if diagonal_model and n > 1:
        raise InputError(
            "the full U* under a diagonal model gives variances that are too small; "
            "use the diagonal rule or a full-covariance model"
        )
    exact = covariance.double()
    mean_variance = exact.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    ridged = exact + ridge * mean_variance * torch.eye(n).to(exact)
    check_positive_definite(ridged, "the residual covariance", rounded_to=covariance.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(ridged))
    return 0.5 * lam * inverse.to(covariance)


def ray_rule(
    direction: Float[Tensor, "*e n n"], covariance: Float[Tensor, "*e2 n n"], lam: EntropyWeight
) -> Float[Tensor, "*e3 n n"]:
    """Best U along the ray b M, M the `direction`: b* = lam n / (2 tr(M Sigma)) (theory T4).

    Raises:
        InputError: tr(M Sigma) or lam is not finite and positive.
    """
    check_entropy_weight(lam)
    trace = (direction * covariance.mT).sum((-2, -1))
    if not bool((torch.isfinite(trace) & (trace > 0)).all()):
        raise InputError(
            f"tr(M Sigma) = {float(trace.amin()):.3g}: must be finite and above 0; "
            "check the residuals and the direction M"
        )
    scale = lam * covariance.shape[-1] / (2 * trace)
    return scale[..., None, None] * direction


def optimal_covariance(
    precision: Float[Tensor, "*e n n"], lam: EntropyWeight, *, diagonal_model: bool = False
) -> Float[Tensor, "*e n n"]:
    """Covariance at the inner optimum: (lam / 2) U^-1, or diag(lam / (2 U_ii)) (theory T3, T4).

    Raises:
        InputError: U is not finite, symmetric and positive definite, or lam not above 0.
    """
    check_entropy_weight(lam)
    check_positive_definite(precision, "U")
    if diagonal_model:
        return torch.diag_embed(0.5 * lam / precision.diagonal(dim1=-2, dim2=-1))
    return 0.5 * lam * torch.linalg.inv(precision)


def optimal_logits(
    precision: Float[Tensor, "*e k k"], frequencies: Float[Tensor, "*f k"], lam: EntropyWeight
) -> Float[Tensor, "*g k"]:
    """Optimal logits under the one-hot Mahalanobis reward: (2 (U q)_k - U_kk) / lam (theory T7).

    `frequencies` holds q(k | x), the classes' true conditional frequencies; up to a constant in k.
    """
    check_entropy_weight(lam)
    linear = (precision @ frequencies.unsqueeze(-1)).squeeze(-1)
    return (2 * linear - precision.diagonal(dim1=-2, dim2=-1)) / lam


def one_hot_covariance(classes: Int[Tensor, "b"], count: int) -> Float[Tensor, "k k"]:
    """Covariance of the one-hot codes of class labels, input of the published scalar rule (T7)."""
    one_hot = torch.nn.functional.one_hot(classes, count).to(torch.get_default_dtype())
    return torch.cov(one_hot.mT, correction=0).reshape(count, count)
