"""A small network under a neural reward, noise frozen: no closed form, solved to the last bit."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mbrl_bilevel.bilevel.linear_solve import dense
from mbrl_bilevel.bilevel.minimise import minimise
from mbrl_bilevel.bilevel.parameters import Params, ravel, unravel
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient

DTYPE = torch.float64
DECAY = 0.02
LAM = 1.0


class Data(NamedTuple):
    x: Tensor
    y: Tensor
    noise: Tensor


def predict(theta: Params, data: Data) -> Tensor:
    """Mean and log standard deviation, [b, 2], of a network with one tanh layer."""
    hidden = torch.tanh(data.x @ theta["w1"] + theta["b1"])
    return hidden @ theta["w2"] + theta["b2"]


def reward(y_hat: Tensor, data: Data, phi: Params) -> Tensor:
    """A negative quadratic base and a bounded network of (y_hat - y, y_hat, x), [g, b]."""
    error = y_hat - data.y
    base = -(phi["log_u"] + phi["slope"] * data.x[:, 0]).exp() * error.square()
    x = data.x.expand(*y_hat.shape, -1)
    features = torch.cat([error.unsqueeze(-1), y_hat.unsqueeze(-1), x], -1)
    return base + 0.5 * torch.tanh(torch.tanh(features @ phi["v1"]) @ phi["v2"])


def output_loss(outputs: Tensor, phi: Params, data: Data) -> Tensor:
    """-J by pathwise samples mean + std * noise, the noise a part of the data."""
    mean, log_std = outputs.unbind(-1)
    y_hat = mean + log_std.exp() * data.noise
    return -(reward(y_hat, data, phi).mean(0) + LAM * log_std).mean()


def inner(theta: Params, phi: Params, data: Data) -> Tensor:
    decay = 0.5 * DECAY * ravel(theta).square().sum()
    return output_loss(predict(theta, data), phi, data) + decay


def outer(theta: Params, phi: Params, data: Data) -> Tensor:
    """Negative log-likelihood; the small direct dependence on phi is for the test's sake."""
    mean, log_std = predict(theta, data).unbind(-1)
    nll = 0.5 * ((data.y - mean) * (-log_std).exp()).square() + log_std
    return nll.mean() + 0.01 * phi["slope"].square()


PROBLEM = BilevelProblem(inner, outer, outputs=predict, output_loss=output_loss)


def data(rows: int, generator: torch.Generator, samples: int = 8) -> Data:
    x = torch.randn(rows, 2, generator=generator, dtype=DTYPE)
    spread = 0.3 + 0.3 * torch.sigmoid(2 * x[:, 0])
    y = torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1]
    y = y + spread * torch.randn(rows, generator=generator, dtype=DTYPE)
    noise = torch.randn(samples, rows, generator=generator, dtype=DTYPE)
    return Data(x, y, noise)


def newton(loss: Callable[[Params], Tensor], start: Params, steps: int = 5) -> Params:
    """The minimum from near by: Newton's method, quadratic, to rounding."""
    theta, problem = start, BilevelProblem(lambda t, phi, data: loss(t), outer)
    for _ in range(steps):
        graph = InnerGradient(problem, theta, {}, None)
        flat = ravel(graph.gradient)
        hessian = dense(graph.hessian_product, flat)
        theta = unravel(ravel(theta) - torch.linalg.solve(hessian, flat), theta)
    return theta


class SolvedProblem(NamedTuple):
    theta: Params
    phi: Params
    inner: Data
    outer: Data


def neural_problem(seed: int = 0, hidden: int = 5) -> SolvedProblem:
    """A solved toy; Hessian positive definite thanks to a little weight decay."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=DTYPE)

    inner_data, outer_data = data(40, generator), data(30, generator)
    phi = {
        "log_u": torch.tensor(0.5, dtype=DTYPE),
        "slope": torch.tensor(-0.3, dtype=DTYPE),
        "v1": 0.5 * normal(4, 3),
        "v2": 0.5 * normal(3),
    }
    start = {
        "w1": normal(2, hidden),
        "b1": 0.1 * normal(hidden),
        "w2": 0.3 * normal(hidden, 2),
        "b2": torch.zeros(2, dtype=DTYPE),
    }
    theta = minimise(lambda t: inner(t, phi, inner_data), start, iterations=300, tolerance=1e-5)
    theta = newton(lambda t: inner(t, phi, inner_data), theta)
    return SolvedProblem(theta, phi, inner_data, outer_data)


def solved_value(toy: SolvedProblem, phi: Params) -> float:
    """F(phi) of the fully solved bilevel problem."""
    theta = newton(lambda t: inner(t, phi, toy.inner), toy.theta)
    return outer(theta, phi, toy.outer).item()


def arguments(toy: SolvedProblem) -> tuple[BilevelProblem, Params, Params, Any, Any]:
    return PROBLEM, toy.theta, toy.phi, toy.inner, toy.outer


toy = cache(neural_problem)


def at_random(seed: int = 1) -> SolvedProblem:
    """Away from any optimum, where the Hessian is indefinite."""
    generator = torch.Generator().manual_seed(seed)
    theta = {
        k: torch.randn(v.shape, generator=generator, dtype=DTYPE) for k, v in toy().theta.items()
    }
    return toy()._replace(theta=theta)
