"""Theory T7 on whole populations of two classes: which rewards can hold which frequencies.

Every state x comes up equally often and has class 1 at its own rate, so that the data are the
population. The inner level has one free logit per state; both levels are solved to the end, the
outer one by hypergradients with a formed Hessian.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.bilevel.implicit import ExactDense
from mbrl_bilevel.bilevel.minimise import minimise
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.models.categorical import Categorical
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.rewards.closed_form import one_hot_covariance, optimal_logits, scalar_rule
from mbrl_bilevel.rewards.mahalanobis import Form
from mbrl_bilevel.rewards.one_hot import OneHotMahalanobis
from mbrl_bilevel.sanity.check import Check, check

LAM = 1.0
RATES = (0.05, 0.22, 0.4, 0.7, 0.95)


class Population(NamedTuple):
    """100 rows of every state: one-hot x, and y in exact proportion."""

    x: Float[Tensor, "b s"]
    y: Int[Tensor, "b"]


class Learned(NamedTuple):
    """U at every state and the outer NLL there, less the entropy of the classes."""

    precision: Float[Tensor, "s k k"]
    excess: float


def population(rates: tuple[float, ...]) -> Population:
    """Rates are whole percentages."""
    states = torch.eye(len(rates), dtype=torch.float64)
    ones = [round(100 * rate) for rate in rates]
    y = torch.cat([torch.tensor([0] * (100 - n) + [1] * n) for n in ones])
    return Population(states.repeat_interleave(100, 0), y)


def entropy(rates: tuple[float, ...]) -> float:
    """Mean entropy of the classes, the least NLL of any model."""
    return -sum(q * math.log(q) + (1 - q) * math.log(1 - q) for q in rates) / len(rates)


def learn(rates: tuple[float, ...], form: Form, *, of_input: bool = False) -> Learned:
    """The outer optimum over rewards of a form, from U = I, by L-BFGS on hypergradients."""
    data = population(rates)
    inputs = len(rates) if of_input else None
    reward = OneHotMahalanobis(2, form=form, inputs=inputs, hidden=()).double()
    objective = PolicyGradient(reward, lam=LAM)
    problem = _problem(objective)
    theta = {"logit": torch.zeros(len(rates), dtype=torch.float64)}
    phi = {name: p.detach() for name, p in objective.named_parameters()}
    solver = torch.optim.LBFGS(
        list(phi.values()),
        max_iter=100,
        tolerance_grad=1e-9,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        nonlocal theta
        theta = minimise(lambda t: problem.inner_loss(t, phi, data), theta, tolerance=1e-11)
        found = ExactDense()(problem, theta, phi, data, data)
        for name, p in phi.items():
            p.grad = found.grad[name]
        return found.outer_loss

    solver.step(closure)
    excess = closure().item() - entropy(rates)
    states = torch.eye(len(rates), dtype=torch.float64)
    precision = reward.precision(states)  # phi are the reward's own tensors
    return Learned(precision.detach().expand(len(rates), 2, 2), excess)


def right_precision(q: Float[Tensor, "*s k"]) -> Float[Tensor, "*s k k"]:
    """The diagonal U_kk(x) = lam log(2 q_k) / (2 q_k - 1), lam at q_k = 1/2 (theory T7)."""
    z = 2 * q - 1
    safe = torch.where(z == 0, 1.0, z)
    return torch.diag_embed(LAM * torch.where(z == 0, 1.0, torch.log1p(safe) / safe))


def example_checks() -> list[Check]:
    """Base rate 0.22, lambda 1: the best b is 1.130 where the published rule says 2.914."""
    data = population((0.22,))
    q = torch.tensor([0.78, 0.22], dtype=torch.float64)
    best = learn((0.22,), "scalar")
    rule = scalar_rule(one_hot_covariance(data.y, 2).double(), LAM)
    log_p = optimal_logits(rule, q, LAM).log_softmax(-1)
    worse = -(q @ log_p).item() - entropy((0.22,))
    return [
        check("b learned at base rate .22", best.precision[0, 0, 0].item(), 1.130, 5e-4),
        check("b of the published rule at base rate .22", rule[0, 0].item(), 2.914, 5e-4),
        check("NLL above the entropy, learned b", best.excess, 0.0, 1e-9),
        check("NLL above the entropy, published rule", worse, 0.2286, 5e-5),
    ]


def misspecification_checks() -> list[Check]:
    """What a global U cannot hold at five base rates, and an input-dependent one can (T7).

    Under a global U the log odds are linear in q where they should be log(q_1 / q_0). The expected
    value comes from minimising the NLL of those log odds directly; the right U(x) leaves none.
    """
    q = torch.tensor([[1 - rate, rate] for rate in RATES], dtype=torch.float64)
    right = optimal_logits(right_precision(q), q, LAM).log_softmax(-1)
    checks = []
    forms: tuple[Form, ...] = ("scalar", "diagonal", "full")
    direct = _direct(q)
    for form in forms:
        found = learn(RATES, form).excess
        checks.append(check(f"NLL above the entropy, best global {form} U", found, direct, 1e-7))
    found = learn(RATES, "diagonal", of_input=True).excess
    checks.append(check("NLL above the entropy, learned U(x)", found, 0.0, 1e-7))
    formula = -(q * right).sum(-1).mean().item() - entropy(RATES)
    checks.append(check("NLL above the entropy, U(x) of the formula", formula, 0.0, 1e-12))
    return checks


def _direct(q: Float[Tensor, "s k"]) -> float:
    """The least NLL above the entropy of a global U, without a bilevel problem.

    Of two classes every U sees one number, their distance d = U_00 + U_11 - 2 U_01: the log odds
    are d (2 q_1 - 1) / lam.
    """

    def nll(at: Params) -> Tensor:
        odds = at["distance"] * (2 * q[:, 1] - 1)
        return -(q * torch.stack([-odds, odds], -1).sigmoid().log()).sum(-1).mean()

    one = {"distance": torch.ones((), dtype=q.dtype)}
    return nll(minimise(nll, one, tolerance=1e-12)).item() - entropy(RATES)


def _problem(objective: PolicyGradient) -> BilevelProblem:
    def outputs(theta: Params, data: Population) -> Tensor:
        logit = data.x @ theta["logit"]  # of class 1 against class 0
        return torch.stack([torch.zeros_like(logit), logit], -1)

    def inner(out: Tensor, phi: Params, data: Population) -> Tensor:
        return torch.func.functional_call(objective, phi, (Categorical(out), *data))[0]

    def outer(theta: Params, phi: Params, data: Population) -> Tensor:
        return -Categorical(outputs(theta, data)).log_prob(data.y).mean()

    return BilevelProblem.of_outputs(outputs, inner, outer)
