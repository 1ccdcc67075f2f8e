"""The Gaussian toy of the paper, in which every answer is known (theory T2 to T6).

x is uniform on (-5, 5)^2, y = x + 6 + 1.25 eps, lambda = 1. The best scalar reward is u = 0.32 with
an NLL of 1.642 per dimension; from the marginal covariance, right for a model that ignores x, it is
u = 0.0505. Draws are moved affinely to the population's own moments, so that small sets have the
population's answers to rounding. All in float64.
"""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.minimise import minimise
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.models.distributions import DiagonalGaussian, FullGaussian, Gaussian
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.rewards.closed_form import (
    full_rule,
    optimal_covariance,
    residual_covariance,
    scalar_rule,
)
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis
from mbrl_bilevel.sanity.check import Check, check

LAM = 1.0
NOISE = 1.25
INPUT_STD = 10 / math.sqrt(12)
OFFSET = 6.0
N = 2

Mean = Literal["constant", "linear"]
Data = tuple[Tensor, ...]
"""(x, y), or (x, y, noise) where the generations are frozen; x standardised."""


def draw(count: int, generator: torch.Generator) -> Data:
    """`count` pairs of x, in standard deviations, and y, whose second moments are exact."""
    u = torch.rand(count, N, generator=generator, dtype=torch.float64) - 0.5
    noise = torch.randn(count, N, generator=generator, dtype=torch.float64)
    # orthonormal columns: mean 0, identity covariance, noise and x uncorrelated
    ones = torch.ones(count, 1, dtype=torch.float64)
    q = torch.linalg.qr(torch.cat([ones, u, noise], -1)).Q * math.sqrt(count)
    x, eps = q[:, 1 : 1 + N], q[:, 1 + N :]
    return x, INPUT_STD * x + OFFSET + NOISE * eps


def start(mean: Mean, covariance: str) -> Params:
    """Parameters of the untrained model: mean 0, unit covariance."""
    theta = {"bias": torch.zeros(N), "log_std": torch.zeros(N)}
    if mean == "linear":
        theta["weight"] = torch.zeros(N, N)
    if covariance == "full":
        theta["lower"] = torch.zeros(1)
    return {name: value.double() for name, value in theta.items()}


def outputs(theta: Params, data: Data) -> Float[Tensor, "b k"]:
    """Means, log deviations and, for a full covariance, the entry under its factor's diagonal."""
    x = data[0]
    mean = theta["bias"].expand(len(x), N)
    if "weight" in theta:
        mean = mean + x @ theta["weight"]
    shared = [theta["log_std"], *([theta["lower"]] if "lower" in theta else [])]
    return torch.cat([mean, torch.cat(shared).expand(len(x), -1)], -1)


def gaussian_of(out: Float[Tensor, "*b k"]) -> Gaussian:
    """The distribution behind `outputs`."""
    mean, log_std = out[..., :N], out[..., N : 2 * N]
    if out.shape[-1] == 2 * N:
        return DiagonalGaussian(mean, log_std)
    below = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=out.dtype)
    return FullGaussian(mean, torch.diag_embed(log_std.exp()) + out[..., 2 * N, None, None] * below)


def problem(objective: PolicyGradient) -> BilevelProblem:
    """Inner -J of `objective`, outer NLL; phi are the objective's parameters."""

    def inner(out: Tensor, phi: Params, data: Data) -> Tensor:
        noise = {"noise": data[2]} if len(data) > 2 else {}
        arguments = (gaussian_of(out), data[0], data[1])
        return torch.func.functional_call(objective, phi, arguments, noise)[0]

    def outer(theta: Params, phi: Params, data: Data) -> Tensor:
        return -gaussian_of(outputs(theta, data)).log_prob(data[1]).mean()

    return BilevelProblem.of_outputs(outputs, inner, outer)


def outer_variables(objective: PolicyGradient) -> Params:
    """The objective's parameters as a dictionary of fresh tensors."""
    return {name: p.detach().clone() for name, p in objective.named_parameters()}


def precision(phi: Params) -> Float[Tensor, "n n"]:
    """U of a scalar or full Mahalanobis reward from its parameters."""
    form: Any = "full" if "reward.lower" in phi else "scalar"
    reward = Mahalanobis(N, form=form).double()
    parameters = {name.removeprefix("reward."): value for name, value in phi.items()}
    reward.load_state_dict(parameters)
    return reward.precision().detach()


def closed_form_checks(data: Data) -> list[Check]:
    """u* and its NLL from the residual and from the marginal covariance (theory T4)."""
    x, y = data
    checks = []
    residual = residual_covariance(y - INPUT_STD * x - OFFSET)
    marginal = residual_covariance(y - y.mean(0))
    for name, sigma, u, nll in (
        ("residual", residual, 0.32, 1.642),
        ("marginal", marginal, 0.0505, 2.144),
    ):
        rule = scalar_rule(sigma, LAM)
        covariance = optimal_covariance(rule, LAM)
        model = FullGaussian(
            INPUT_STD * x + OFFSET, torch.linalg.cholesky(covariance).expand(len(x), N, N)
        )
        value = -model.log_prob(y).mean() / N
        checks.append(check(f"u* of the {name} covariance", rule[0, 0].item(), u, 5e-5))
        checks.append(check(f"NLL at u* of the {name} covariance", value.item(), nll, 5e-4))
    return checks


def inner_checks(data: Data) -> list[Check]:
    """Error of mean and covariance at the optimum of J, for every kind of model (theory T3)."""
    u = torch.tensor([[0.5, 0.15], [0.15, 0.3]], dtype=torch.float64)
    objective = PolicyGradient(Mahalanobis(N, form="full", initial=u), lam=LAM)
    toy, phi = problem(objective), outer_variables(objective)
    checks = []
    kinds: tuple[tuple[Mean, str], ...] = tuple(
        (mean, covariance) for mean in ("constant", "linear") for covariance in ("diagonal", "full")
    )
    for mean, covariance in kinds:
        theta = minimise(lambda t: toy.inner_loss(t, phi, data), start(mean, covariance))
        fitted = gaussian_of(outputs(theta, data))
        x, right = data[0], torch.full((1, N), OFFSET).double()
        if mean == "linear":
            right = INPUT_STD * x + OFFSET
        expected = optimal_covariance(u, LAM, diagonal_model=covariance == "diagonal")
        found = fitted.scale_tril[0] @ fitted.scale_tril[0].mT
        name = f"{mean} mean, {covariance} covariance"
        far = (fitted.mean - right).abs().amax().item()
        checks.append(check(f"inner optimum, {name}: error of the mean", far, 0.0, 1e-6))
        far = (found - expected).abs().amax().item()
        checks.append(check(f"inner optimum, {name}: error of the covariance", far, 0.0, 1e-6))
    return checks


def optimal_precision(mean: Mean) -> Float[Tensor, "n n"]:
    """U* = (lam / 2) Sigma^-1, with the marginal Sigma where the mean ignores x (theory T4)."""
    variance = NOISE**2 + (INPUT_STD**2 if mean == "constant" else 0.0)
    return full_rule(variance * torch.eye(N, dtype=torch.float64), LAM, ridge=0.0)
