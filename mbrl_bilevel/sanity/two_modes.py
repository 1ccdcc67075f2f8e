"""A model that can have two modes, trained by rewards and by likelihood (theory T11).

y is near -1 or near 1, with shares .3 and .7. The model is a mixture of two Gaussians, so that the
truth is within reach, and all expectations are sums over a fine grid.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.implicit import ExactDense
from mbrl_bilevel.bilevel.minimise import minimise
from mbrl_bilevel.bilevel.parameters import Params, gradients, leaves
from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.objectives.mixture_losses import sampled_energy_score
from mbrl_bilevel.sanity.check import Check, check
from mbrl_bilevel.sanity.mixture import distribution, energy_score, mixture
from mbrl_bilevel.sanity.over_seeds import at_most

TRUTH = mixture(0.3, (-1.0, 1.0), (0.2, 0.2))
START = mixture(0.5, (-0.4, 0.4), (0.6, 0.6))
LAM = 1.0
GRID = torch.linspace(-5.0, 5.0, 2_001, dtype=torch.float64)
CELL = float(GRID[1] - GRID[0])
ROWS, GENERATIONS = 16, 16  # samples of the truth per gradient step, and of the model for each
STEPS = 3_000  # of the training by samples


def expectation(p: Params, values: Float[Tensor, "q"]) -> Float[Tensor, ""]:
    """E[values(y)] over y ~ p, by the grid."""
    return CELL * (distribution(p).log_prob(GRID).exp() * values).sum()


def nll(p: Params) -> Float[Tensor, ""]:
    """Of the truth's draws under p, in nats."""
    return -expectation(TRUTH, distribution(p).log_prob(GRID))


def entropy(p: Params) -> Float[Tensor, ""]:
    return -expectation(p, distribution(p).log_prob(GRID))


def squared_error_loss(p: Params, u: float) -> Float[Tensor, ""]:
    """-J under the reward -u (y_hat - y)^2 (theory T2); only two moments of the truth are in it."""
    (mean, variance), (true_mean, true_variance) = (distribution(q).moments() for q in (p, TRUTH))
    expected = variance + true_variance + (mean - true_mean).square()
    return u * expected - LAM * entropy(p)


def checks(generator: torch.Generator) -> list[Check]:
    """Which objective finds both modes, beside closed forms."""
    return [
        *likelihood_checks(),
        *squared_error_checks(),
        *energy_checks(generator),
        *learned_reward_checks(),
    ]


def likelihood_checks() -> list[Check]:
    found = minimise(nll, START)
    return [check("NLL, maximum likelihood", float(nll(found)), float(entropy(TRUTH)), 1e-8)]


def squared_error_checks() -> list[Check]:
    """By T5 the best p under any u is N(E y, lam / (2 u)): the reward sees no second mode."""
    variance = float(distribution(TRUTH).moments()[1])
    u = 0.5 * LAM / variance  # the best u for the likelihood (theory T4)
    found = minimise(lambda p: squared_error_loss(p, u), START)
    # -J at N(E y, variance): u (2 variance) - lam log(2 pi e variance) / 2
    least = 2 * u * variance - 0.5 * LAM * math.log(2 * math.pi * math.e * variance)
    gaussian = 0.5 * math.log(2 * math.pi * math.e * variance)
    return [
        # Where both components coincide the loss is flat to fourth order: solvers end near it.
        check("-J, squared error, best u", float(squared_error_loss(found, u)), least, 1e-4),
        check("NLL, squared error, best u: one Gaussian's", float(nll(found)), gaussian, 1e-3),
        at_most(
            "squared error's loss of the truth is no smaller",
            least,
            float(squared_error_loss(TRUTH, u)),
        ),
    ]


def energy_checks(generator: torch.Generator) -> list[Check]:
    found = minimise(lambda p: energy_score(p, TRUTH), START)
    trained = train_by_samples(generator)
    return [
        check("NLL, energy score", float(nll(found)), float(entropy(TRUTH)), 1e-6),
        check(
            "energy score's gradient by samples, deviations from the closed form",
            gradient_deviation(generator),
            0.0,
            4.0,
        ),
        at_most(
            "NLL above the entropy, energy score by samples",
            float(nll(trained) - entropy(TRUTH)),
            0.25,  # a quarter of what one Gaussian lacks
        ),
    ]


def gradient_deviation(generator: torch.Generator, repetitions: int = 500) -> float:
    """The largest difference between sampled and closed gradients, in standard errors."""
    exact = _flat(lambda p: energy_score(p, TRUTH), START)
    sampled = torch.stack([_flat(_draw(START, generator), START) for _ in range(repetitions)])
    error = sampled.std(0) / repetitions**0.5
    return float(((sampled.mean(0) - exact) / error).abs().max())


def train_by_samples(generator: torch.Generator) -> Params:
    """Adam on sampled energy scores, its rate falling to 0; each step sees new draws of both."""
    p = leaves({k: v.clone() for k, v in START.items()})
    optimizer = torch.optim.Adam(p.values(), 2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        loss = _draw(p, generator)(p)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return {k: v.detach() for k, v in p.items()}


def _draw(p: Params, generator: torch.Generator) -> Callable[[Params], Tensor]:
    y = distribution(TRUTH).sample(ROWS, generator)
    generations = distribution(p).sample(GENERATIONS * ROWS, generator).view(GENERATIONS, ROWS)
    return lambda q: sampled_energy_score(distribution(q), y, generations).mean()


def _flat(loss: Callable[[Params], Tensor], p: Params) -> Float[Tensor, "n"]:
    p = leaves(p)
    return torch.cat([g.reshape(-1) for g in gradients(loss(p), p).values()])


def learned_reward_checks(outer_steps: int = 60) -> list[Check]:
    """r(y_hat) = lam log m_phi(y_hat), m_phi a mixture: the outer level learns phi by likelihood.

    The inner optimum is m_phi itself (theory T5), so that the best reward is lam log of the truth.
    """

    def inner(theta: Params, phi: Params, _: None) -> Float[Tensor, ""]:
        return -LAM * (expectation(theta, distribution(phi).log_prob(GRID)) + entropy(theta))

    problem = BilevelProblem(inner, lambda theta, phi, _: nll(theta))
    theta, phi = START, leaves(mixture(0.5, (-0.6, 0.5), (0.5, 0.5)))
    optimizer = torch.optim.LBFGS(
        list(phi.values()), max_iter=outer_steps, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        now = {k: v.detach() for k, v in phi.items()}
        solved = minimise(lambda t: inner(t, now, None), theta)
        found = ExactDense()(problem, solved, now, None, None)
        for name, p in phi.items():
            p.grad = found.grad[name]
        return found.outer_loss

    optimizer.step(closure)
    learned = {k: v.detach() for k, v in phi.items()}
    solved = minimise(lambda t: inner(t, learned, None), theta)
    return [
        check("NLL, learned reward", float(nll(solved)), float(entropy(TRUTH)), 1e-5),
        check("learned reward: distance of its modes", float((learned["mean"]).diff()), 2.0, 1e-2),
    ]
