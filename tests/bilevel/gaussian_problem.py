"""A Gaussian model under a Mahalanobis reward, where theory T2 to T6 know every answer."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mbrl_bilevel.bilevel.closed_form import mahalanobis_gradient, to_cholesky
from mbrl_bilevel.bilevel.hypergradient import Estimator
from mbrl_bilevel.bilevel.implicit import Implicit
from mbrl_bilevel.bilevel.parameters import Params, ravel
from mbrl_bilevel.bilevel.problem import BilevelProblem

DTYPE = torch.float64
EXACT = Implicit(rtol=1e-14, max_iterations=1000)


class SolvedProblem(NamedTuple):
    """A problem with its data, its outer variables and its exact inner solution."""

    problem: BilevelProblem
    theta: Params
    phi: Params
    inner: Any
    outer: Any
    residual_covariance: Tensor

    @property
    def U(self) -> Tensor:
        L = self.phi["L"].tril()
        return L @ L.mT

    @property
    def lam(self) -> Tensor:
        return self.phi["log_lam"].exp()

    def gradient(self) -> Params:
        """dF/dL and dF/d(log lam) in closed form (theory T6)."""
        by_U = mahalanobis_gradient(self.U, self.residual_covariance, self.lam.item())
        by_L = to_cholesky(by_U, self.phi["L"].tril())
        n = self.U.shape[-1]
        fit = (self.U * self.residual_covariance).sum() / self.lam
        return {"L": by_L, "log_lam": 0.5 * n - fit}


def unpack(outputs: Tensor, n: int) -> tuple[Tensor, Tensor]:
    mean, log_diagonal, off = outputs.split([n, n, n * (n - 1) // 2], -1)
    T = torch.diag_embed(log_diagonal.exp())
    if n > 1:
        rows, columns = torch.tril_indices(n, n, -1)
        lower = torch.zeros(off.shape[-1], n, n, dtype=off.dtype)
        lower[torch.arange(off.shape[-1]), rows, columns] = 1.0
        T = T + torch.einsum("...k,kij->...ij", off, lower)
    return mean, T


def predict(theta: Params, data: Any) -> Tensor:
    """Outputs [*e, b, k] of a linear mean and a covariance that is the same everywhere."""
    x, _ = data
    mean = x @ theta["W"] + theta["c"].unsqueeze(-2)
    spread = torch.cat([theta["log_diagonal"], theta["off"]], -1).unsqueeze(-2)
    return torch.cat([mean, spread.expand(*mean.shape[:-1], -1)], -1)


def negative_J(outputs: Tensor, phi: Params, data: Any) -> Tensor:
    """The exact inner loss of theory T2, up to a constant; one loss per leading axis."""
    _, y = data
    L, lam = phi["L"].tril(), phi["log_lam"].exp()
    mean, T = unpack(outputs, y.shape[-1])
    fit = ((mean - y) @ L).square().sum(-1)
    trace = (L.mT.unsqueeze(-3) @ T).square().sum((-2, -1))
    half_logdet = T.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return (fit + trace - lam * half_logdet).mean(-1)


def negative_log_likelihood(theta: Params, phi: Params, data: Any) -> Tensor:
    return sample_nll(theta, data).mean()


def sample_nll(theta: Params, data: Any) -> Tensor:
    """-log p(y|x) of every sample."""
    _, y = data
    mean, T = unpack(predict(theta, data), y.shape[-1])
    z = torch.linalg.solve_triangular(T, (y - mean).unsqueeze(-1), upper=False).squeeze(-1)
    half_logdet = T.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    constant = 0.5 * y.shape[-1] * torch.log(torch.tensor(2 * torch.pi, dtype=y.dtype))
    return 0.5 * z.square().sum(-1) + half_logdet + constant


def inner_solution(phi: Params, data: Any) -> Params:
    """theta* of theory T3: least squares for the mean, S = (lam/2) U^-1 for the covariance."""
    x, y = data
    ones = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    W = torch.linalg.lstsq(ones, y).solution
    n = y.shape[-1]
    L = phi["L"].tril()
    T = torch.linalg.cholesky(0.5 * phi["log_lam"].exp() * torch.linalg.inv(L @ L.mT))
    rows, columns = torch.tril_indices(n, n, -1)
    batch = y.shape[:-2]
    return {
        "W": W[..., :-1, :].contiguous(),
        "c": W[..., -1, :].contiguous(),
        "log_diagonal": T.diagonal().log().expand(*batch, n).contiguous(),
        "off": T[rows, columns].expand(*batch, n * (n - 1) // 2).contiguous(),
    }


def dataset(generator: torch.Generator, rows: int, inputs: int, n: int, *batch: int) -> Any:
    """x standard normal, y linear in x with correlated noise; the systems are well conditioned."""
    x = torch.randn(*batch, rows, inputs, generator=generator, dtype=DTYPE)
    slope = torch.linspace(-1.0, 1.0, inputs * n, dtype=DTYPE).reshape(inputs, n)
    mix = torch.eye(n, dtype=DTYPE) + 0.3 * torch.ones(n, n, dtype=DTYPE).tril(-1)
    noise = torch.randn(*batch, rows, n, generator=generator, dtype=DTYPE)
    return x, x @ slope + 0.5 + 0.7 * noise @ mix.T


def gaussian_problem(
    n: int = 3, members: int | None = None, seed: int = 0, rows: int = 40
) -> SolvedProblem:
    """The toy at a generic phi, with theta solved exactly."""
    generator = torch.Generator().manual_seed(seed)
    batch = () if members is None else (members,)
    inner = dataset(generator, rows, 2, n, *batch)
    outer = dataset(generator, rows, 2, n)
    L = torch.eye(n, dtype=DTYPE) + 0.2 / n * torch.randn(n, n, generator=generator, dtype=DTYPE)
    phi = {"L": L.tril(), "log_lam": torch.tensor(0.3, dtype=DTYPE)}
    problem = BilevelProblem.of_outputs(
        predict, negative_J, negative_log_likelihood, ensemble=members is not None
    )
    theta = inner_solution(phi, inner)
    mean, _ = unpack(predict(theta, outer), n)
    residual = (outer[1] - mean).reshape(-1, n)
    return SolvedProblem(problem, theta, phi, inner, outer, residual.T @ residual / len(residual))


def estimate(toy: SolvedProblem, estimator: Estimator) -> Params:
    """The estimator's gradient at the toy's exact inner solution."""
    return estimator(toy.problem, toy.theta, toy.phi, toy.inner, toy.outer).grad


def relative_error(found: Params, expected: Params) -> float:
    """|found - expected| / |expected| over all numbers of both dictionaries."""
    difference = ravel({k: found[k] - expected[k] for k in expected})
    return (difference.norm() / ravel(expected).norm()).item()
