"""Tabular dynamics p(s' | s, a) by counts, and by policy gradient under rewards between one-hot s'.

A table has free logits for every (s, a), so that the inner optimum is that of theory T7 at the
observed frequencies q(s' | s, a), in closed form and differentiable in the reward's parameters: the
outer gradient is the derivative through it. Of a pair never met every model says the uniform law,
for no loss speaks of it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.minimise import minimise
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.models.categorical import Categorical
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.rewards.one_hot import OneHotMahalanobis

LAM = 1.0


def frequencies(
    counts: Float[Tensor, "*r k"], prior: float | Float[Tensor, "*r 1"] = 0.0
) -> Float[Tensor, "*r k"]:
    """(n + prior) / sum of the same, uniform where that is 0 / 0; without prior: by counts."""
    weighted = counts + prior
    total = weighted.sum(-1, keepdim=True)
    return torch.where(total > 0, weighted / total.clamp_min(1e-300), 1.0 / counts.shape[-1])


def by_rule(counts: Float[Tensor, "*e s a k"]) -> Float[Tensor, "*e s a k"]:
    """The inner optimum under U = b I of the published rule, softmax(2 b q / lam) (theory T7).

    b = lam k / (2 tr Sigma), Sigma the covariance of the one-hot codes of all next states.
    """
    marginal = counts.sum((-3, -2))
    marginal = marginal / marginal.sum(-1, keepdim=True)
    b = LAM * counts.shape[-1] / (2 * (1 - marginal.square().sum(-1)))
    return (2 * b[..., None, None, None] * frequencies(counts) / LAM).softmax(-1)


def log_optimum(
    prior: Float[Tensor, "*r"], scale: Float[Tensor, "*r"], counts: Float[Tensor, "*r k"]
) -> Float[Tensor, "*r k"]:
    """log p at the inner optimum under U_kk(s, a) = c lam log(2 q~_k) / (2 q~_k - 1) (theory T7).

    The input-dependent diagonal reward of theory T7 with q~, smoothed by a prior count, in place of
    the unknown frequencies, times a scale c. Prior and scale are the outer variables.
    """
    z = 2 * frequencies(counts, prior[..., None]) - 1
    near = z.abs() < 1e-6
    safe = torch.where(near, 1.0, z)
    precision = scale[..., None] * LAM * torch.where(near, 1 - z / 2, torch.log1p(safe) / safe)
    # (2 U q - U) / lam for a diagonal U
    return (precision * (2 * frequencies(counts) - 1) / LAM).log_softmax(-1)


def by_learned_reward(
    inner: Float[Tensor, "e s a k"], outer: Float[Tensor, "e s a k"], iterations: int = 10
) -> tuple[Float[Tensor, "e s a k"], Params]:
    """The model of all data under the reward learned from the split, and that reward's variables.

    A prior and a scale per seed, both from 1, by L-BFGS on the NLL of the outer transitions.
    """
    visited = outer.sum(-1) > 0  # the other pairs weigh nothing
    share = (outer / outer.sum((-3, -2, -1), keepdim=True))[visited]
    of_seed = visited.nonzero()[:, 0]
    first = {name: inner.new_zeros(len(inner)) for name in ("log_prior", "log_scale")}

    def nll(phi: Params) -> Tensor:
        prior, scale = (phi[name].exp()[of_seed] for name in first)
        return -(share * log_optimum(prior, scale, inner[visited])).sum()

    phi = minimise(nll, first, iterations=iterations, tolerance=1e-5)
    prior, scale = (phi[k].exp()[:, None, None].expand(visited.shape) for k in first)
    return log_optimum(prior, scale, inner + outer).exp(), phi


def by_gradient(counts: Float[Tensor, "s a k"], b: float) -> Float[Tensor, "s a k"]:
    """What `PolicyGradient` under U = b I arrives at from uniform logits, by L-BFGS: its slow way.

    Every pair counts by its number of visits; (s, a) never met stay where they started.
    """
    objective = PolicyGradient(OneHotMahalanobis(counts.shape[-1], form="scalar", initial=b))
    objective = objective.to(counts.dtype)
    place = counts.nonzero()
    weight = counts[counts > 0]
    s, a, y = place.unbind(-1)
    x = place[:, :1].to(counts.dtype)

    def loss(theta: Params) -> Tensor:
        logits = theta["logits"][s, a]
        # one loss per observed triple: each as a member with a batch of one
        each = objective(Categorical(logits[:, None]), x[:, None], y[:, None])[0]
        return (weight * each).sum() / len(weight)

    found = minimise(loss, {"logits": torch.zeros_like(counts)}, iterations=2000, tolerance=1e-9)
    return found["logits"].softmax(-1)
