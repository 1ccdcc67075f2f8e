"""The closed-form choices of U against grids, gradients of the NLL and hand-worked figures."""

import math

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.distributions import FullGaussian
from mbrl_bilevel.rewards import closed_form
from mbrl_bilevel.rewards.closed_form import (
    check_positive_definite,
    diagonal_rule,
    full_rule,
    optimal_covariance,
    ray_rule,
    residual_covariance,
    scalar_rule,
)

LAM = 0.7


def residuals(n: int = 3, b: int = 200) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(b, n, generator=generator, dtype=torch.float64)
    mixing = torch.randn(n, n, generator=generator, dtype=torch.float64) + 2 * torch.eye(n)
    return noise @ mixing.mT


def outer_nll(u: torch.Tensor, r: torch.Tensor, lam: float | torch.Tensor = LAM) -> torch.Tensor:
    """Held-out NLL of a fitted mean at the inner optimum S = (lam/2) U^-1, from the residuals."""
    covariance = 0.5 * lam * torch.linalg.inv(u)
    gaussian = FullGaussian(torch.zeros_like(r[0]), torch.linalg.cholesky(covariance))
    return -gaussian.log_prob(r).mean()


@pytest.mark.parametrize("n", [1, 2, 17])
def test_full_rule_has_gradient_zero_and_reaches_maximum_likelihood(n):
    r = residuals(n)
    u = full_rule(residual_covariance(r), LAM, ridge=0.0).requires_grad_()
    nll = outer_nll(u, r)
    (gradient,) = torch.autograd.grad(nll, u)
    assert gradient.abs().max() < 1e-11
    fitted = FullGaussian(torch.zeros(n).double(), torch.linalg.cholesky(residual_covariance(r)))
    assert nll.item() == pytest.approx(-fitted.log_prob(r).mean().item(), rel=1e-12)


def test_restricted_rules_are_the_best_of_a_grid_along_their_restriction():
    r = residuals()
    sigma = residual_covariance(r)
    direction = torch.linalg.inv(sigma) + torch.diag(torch.tensor([1.0, 2, 3]).double())
    factors = torch.linspace(0.5, 2.0, 301, dtype=torch.float64)
    for u in (scalar_rule(sigma, LAM), ray_rule(direction, sigma, LAM)):
        values = torch.stack([outer_nll(f * u, r) for f in factors])
        assert factors[values.argmin()].item() == pytest.approx(1.0, abs=0.0051)
    best = diagonal_rule(sigma, LAM)
    for i in range(3):
        scale = torch.ones(3, dtype=torch.float64)
        values = []
        for f in factors:
            scale[i] = f
            values.append(outer_nll(best * scale, r))
        assert factors[torch.stack(values).argmin()].item() == pytest.approx(1.0, abs=0.0051)


def test_rules_agree_where_they_must():
    sigma = torch.diag(torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64))
    expected = 0.7 * torch.eye(3, dtype=torch.float64)  # lam / (2 * 0.5)
    for u in (scalar_rule(sigma, LAM), diagonal_rule(sigma, LAM), full_rule(sigma, LAM, ridge=0.0)):
        torch.testing.assert_close(u, expected, rtol=1e-12, atol=0.0)


def test_rules_keep_a_member_axis():
    r = torch.stack([residuals(), 2 * residuals()])
    sigma = residual_covariance(r)
    for rule in (scalar_rule, diagonal_rule, full_rule):
        u = rule(sigma, LAM)
        torch.testing.assert_close(u[0], rule(sigma[0], LAM))
        torch.testing.assert_close(u[1], u[0] / 4)


def test_diagonal_model_under_the_full_rule_takes_the_conditional_variance():
    sigma = torch.tensor([[2.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    u = full_rule(sigma, LAM, ridge=0.0)
    got = optimal_covariance(u, LAM, diagonal_model=True).diagonal()
    expected = torch.tensor([2 - 0.81, 1 - 0.405], dtype=torch.float64)  # Var(y_i | y_j)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(optimal_covariance(u, LAM), sigma)
    with pytest.raises(InputError, match="use the diagonal rule"):
        full_rule(sigma, LAM, diagonal_model=True)
    right = optimal_covariance(diagonal_rule(sigma, LAM), LAM, diagonal_model=True)
    torch.testing.assert_close(right.diagonal(), sigma.diagonal())


def test_residual_covariance_is_the_second_moment_with_the_bias_in_it():
    r = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
    torch.testing.assert_close(residual_covariance(r), torch.tensor([[5.0, 3.0], [3.0, 2.0]]))
    torch.testing.assert_close(residual_covariance(r[:1]), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def rotated(eigenvalues: list[float], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """A symmetric matrix of these eigenvalues, with no axis along a coordinate."""
    generator = torch.Generator().manual_seed(1)
    n = len(eigenvalues)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    matrix = (q * torch.tensor(eigenvalues, dtype=torch.float64)) @ q.mT
    return (0.5 * (matrix + matrix.mT)).to(dtype)


@pytest.mark.situation("refused")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [2, 3, 17])
def test_ridge_mends_a_singular_covariance(n: int, dtype: torch.dtype) -> None:
    """Fewer residuals than dimensions: which way a factorisation rounds does not matter."""
    for rows in range(1, n):
        covariance = residual_covariance(residuals(n)[:rows].to(dtype))
        with pytest.raises(InputError, match=r"not positive definite.*add a ridge"):
            full_rule(covariance, LAM, ridge=0.0)
        u = full_rule(covariance, LAM, ridge=1e-3)
        assert u.dtype == dtype
        assert (torch.linalg.eigvalsh(u.double()) > 0).all()


# Well away from rounding, which is 12 eps: 3e-15 and 1.4e-6.
@pytest.mark.parametrize(
    ("dtype", "smallest", "accepted"),
    [
        (torch.float64, 1e-12, True),
        (torch.float64, 0.0, False),
        (torch.float64, -1e-12, False),
        (torch.float32, 1e-4, True),
        (torch.float32, 0.0, False),
        (torch.float32, 1e-9, False),
        (torch.float32, -1e-4, False),
    ],
)
def test_positive_definite_means_beyond_rounding(
    dtype: torch.dtype, smallest: float, accepted: bool
) -> None:
    for size in (1e-12, 1.0, 1e12):
        matrix = size * rotated([1.0, 0.5, smallest], dtype)
        if accepted:
            check_positive_definite(matrix, "M")
            check_positive_definite(torch.stack([matrix, matrix]), "M")
            continue
        with pytest.raises(InputError, match="M is not positive definite"):
            check_positive_definite(matrix, "M")
        with pytest.raises(InputError, match="M is not positive definite"):
            check_positive_definite(torch.stack([torch.eye(3).to(matrix), matrix]), "M")


def test_units_of_dimensions_do_not_count_against_a_matrix() -> None:
    units = torch.tensor([1e-12, 1.0, 1e12])
    check_positive_definite(torch.diag(units), "M")
    check_positive_definite(units[:, None] * rotated([3.0, 2.0, 1.0], torch.float32) * units, "M")


def test_scale_of_reward_and_lambda_are_one_parameter():
    r = residuals()
    u = torch.diag(torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)).requires_grad_()
    lam = torch.tensor(LAM, dtype=torch.float64, requires_grad=True)
    d_u, d_lam = torch.autograd.grad(outer_nll(u, r, lam), (u, lam))
    assert d_lam.abs() > 0.1
    assert ((d_u * u).sum() + lam * d_lam).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("u", [0.1, 0.32, 0.6, 1.0])
def test_unit_values_per_dimension(u):
    noise = 1.25
    r = torch.tensor([[noise], [-noise]], dtype=torch.float64)  # residual variance exactly 1.25^2
    matrix = torch.full((1, 1), u, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(outer_nll(matrix, r, 1.0), matrix)
    assert gradient.item() == pytest.approx(-1 / (2 * u) + noise**2, rel=1e-12, abs=1e-12)


def test_published_toy_figures():
    noise, marginal = 1.25**2, 1.25**2 + 100 / 12  # Var of a uniform on (-5, 5) is 100 / 12
    r = torch.tensor([[1.25], [-1.25]], dtype=torch.float64)
    for variance, u, nll in ((noise, 0.32, 1.642), (marginal, 0.0505, 2.144)):
        rule = scalar_rule(torch.full((1, 1), variance, dtype=torch.float64), 1.0)
        assert rule.item() == pytest.approx(u, abs=5e-5)
        assert outer_nll(rule, r, 1.0).item() == pytest.approx(nll, abs=5e-4)


@pytest.mark.parametrize("lam", [0.0, -1.0, math.nan, math.inf])
def test_entropy_weight_must_be_positive(lam):
    for rule in (scalar_rule, diagonal_rule, full_rule):
        with pytest.raises(InputError, match="above 0"):
            rule(torch.eye(2), lam)


@pytest.mark.parametrize("value", [math.nan, 0.0, -1.0])
def test_bad_covariances_are_refused(value):
    for rule in (scalar_rule, diagonal_rule, full_rule):
        with pytest.raises(InputError):
            rule(torch.full((2, 2), value), 1.0)
    with pytest.raises(InputError, match="no residuals"):
        residual_covariance(torch.zeros(0, 2))


def best_b(q: torch.Tensor) -> float:
    """Best b of U = b I for classes of frequencies q [m, k], by a fine grid of the test NLL."""
    b = torch.linspace(0.5, 3.5, 3001, dtype=torch.float64)
    eye = torch.eye(q.shape[-1], dtype=torch.float64)
    logits = torch.stack([closed_form.optimal_logits(float(s) * eye, q, 1.0) for s in b])
    nll = -(q * logits.log_softmax(-1)).sum(-1).mean(-1)
    return b[nll.argmin()].item()


def test_published_one_hot_rule_is_not_the_best():
    q = torch.tensor([[0.78, 0.22]], dtype=torch.float64)
    expected = math.log(0.78 / 0.22) / (2 * (0.78 - 0.22))  # 2 b (q_0 - q_1) = log(q_0 / q_1)
    assert best_b(q) == pytest.approx(expected, abs=1e-3)
    labels = torch.tensor([0] * 78 + [1] * 22)
    published = scalar_rule(closed_form.one_hot_covariance(labels, 2).double(), 1.0)[0, 0].item()
    assert published == pytest.approx(2 / (2 * 2 * 0.22 * 0.78), rel=1e-6)
    assert published > 2.5 * expected


@pytest.mark.parametrize("diagonal_model", [True, False])
@pytest.mark.parametrize(
    "U", [torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, math.inf]])]
)
def test_a_covariance_of_no_precision_is_refused(U, diagonal_model):
    with pytest.raises(InputError, match=r"U (is not positive definite|holds entries)"):
        optimal_covariance(U, LAM, diagonal_model=diagonal_model)
