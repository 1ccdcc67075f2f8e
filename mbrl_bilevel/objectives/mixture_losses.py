"""Losses of a mixture model: likelihood, energy score, and rewards by policy gradient (theory T11).

Each returns one number per row and target. Targets are independent given the input and every
reward is a sum over them, so that the score of a target multiplies its own reward alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.mixture import Mixture
from mbrl_bilevel.objectives.estimators import leave_one_out, magic_box


def sampled_energy_score(
    p: Mixture, y: Float[Tensor, "*y"], generations: Float[Tensor, "g *s"]
) -> Float[Tensor, "*s"]:
    """The energy score by draws of p that are held fixed, with the gradient by their scores.

    E|a - y| - E|a - b| / 2: both generations of a pair depend on the parameters, so that the cost
    of generation a is |a - y| - E_b|a - b|, without the half. Its baseline is the same of the other
    generations: of use far from y, while at the truth costs are 0 on average. Value and first
    derivatives are without bias; second ones are not those of theory T11's pair of magic boxes.

    Raises:
        InputError: fewer than three generations, of which a baseline of pairs needs two others.
    """
    count = len(generations)
    if count < 3:
        raise InputError(f"{count} generations: the energy score by samples needs at least 3")
    ordered = generations.sort(0).values
    box = magic_box(p.log_prob(ordered)) - 1
    to_y, apart = (ordered - y).abs(), _sum_of_distances(ordered)
    pairs = apart.sum(0) / (count * (count - 1))
    cost = to_y - apart / (count - 1)
    others = (apart.sum(0) - 2 * apart) / ((count - 1) * (count - 2))
    baseline = leave_one_out(to_y) - others
    return (box * (cost - baseline)).mean(0) + to_y.mean(0) - 0.5 * pairs


def _sum_of_distances(ordered: Float[Tensor, "g *s"]) -> Float[Tensor, "g *s"]:
    """sum_j |a_i - a_j| of every i, for numbers in ascending order on the leading axis."""
    count = len(ordered)
    place = torch.arange(count, device=ordered.device, dtype=ordered.dtype)
    # i numbers below, count - 1 - i above: their sums are differences of cumulative ones.
    factor = (2 * place - count + 2).view(-1, *(1 for _ in ordered.shape[1:]))
    return factor * ordered + ordered.sum(0) - 2 * ordered.cumsum(0)


def policy_gradient(
    p: Mixture,
    reward: Float[Tensor, "g *s"],
    generations: Float[Tensor, "g *s"],
    lam: float = 1.0,
) -> Float[Tensor, "*s"]:
    """-E[r] - lam H(p) by draws of p that are held fixed (theory T1), with the score's gradient.

    The entropy of a mixture has no closed form: -lam log p(a) is paid like a reward, for the score
    itself has expectation 0. The baseline is the leave-one-out mean.
    """
    log_prob = p.log_prob(generations)
    cost = lam * log_prob.detach() - reward.detach()
    other = leave_one_out(cost)
    return (magic_box(log_prob) * (cost - other) + other).mean(0)


def squared_error_reward(
    generations: Float[Tensor, "g *s"], y: Float[Tensor, "*y"]
) -> Float[Tensor, "g *s"]:
    """r = -(a - y)^2 of each target: the Mahalanobis reward of U = I (theory T2)."""
    return -(generations - y).square()
