"""Estimates of E[r(y_hat, y, x)] over y_hat ~ p(. | x): exact, pathwise, by score function.

Each takes `reward_of`, the reward as a function of the generations alone, and returns one number
per row, [*e, B]. Gradients and second derivatives in the parameters of the distribution and of
the reward are right (exactly or without bias) in every one, but for the published transforms.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.models.categorical import Categorical
from mbrl_bilevel.models.distributions import Gaussian

RewardOf = Callable[[Tensor], Tensor]
Baseline = Literal["leave_one_out", "none"]
Transform = Literal["none", "normalize", "rbf"]


def magic_box(log_prob: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """exp(log_prob - stop(log_prob)): 1 in value, with the score's derivatives of every order.

    DiCE (Foerster et al. 2018, eq. 4). A plain surrogate log_prob * r has the right gradient and a
    wrong Hessian, for it lacks the outer product of scores (theory T8).
    """
    return torch.exp(log_prob - log_prob.detach())


def leave_one_out(rewards: Float[Tensor, "g *s"]) -> Float[Tensor, "g *s"]:
    """For each generation the mean reward of the others: a baseline independent of it."""
    return (rewards.sum(0) - rewards) / (rewards.shape[0] - 1)


def enumerated(reward_of: RewardOf, distribution: Categorical) -> Float[Tensor, "*e b"]:
    """E[r] = sum_k p_k r(k), exact for a categorical distribution."""
    lead = distribution.logits.shape[:-1]
    classes = torch.arange(distribution.classes, device=distribution.logits.device)
    # Every class is a generation, on the leading axis as samples are.
    classes = classes.reshape(-1, *(1 for _ in lead)).expand(-1, *lead)
    return (distribution.probs.movedim(-1, 0) * reward_of(classes)).sum(0)


def reparameterized(
    reward_of: RewardOf,
    distribution: Gaussian | Categorical,
    noise: Float[Tensor, "g *e b n"],
    transform: Transform = "none",
) -> Float[Tensor, "*e b"]:
    """Mean reward of the pathwise samples mean + L noise, differentiated through the samples.

    Raises:
        InputError: a categorical distribution, which has none.
    """
    rewards = reward_of(distribution.rsample(noise))
    return (rewards.exp() if transform == "rbf" else rewards).mean(0)


def score_function(
    reward_of: RewardOf,
    distribution: Gaussian | Categorical,
    noise: Float[Tensor, "g *e b n"],
    *,
    baseline: Baseline = "leave_one_out",
    transform: Transform = "none",
    clip_log_prob: tuple[float, float] | None = None,
) -> Float[Tensor, "*e b"]:
    """Mean reward of samples held fixed, differentiated through their probability (theory T8).

    mean_g [magic_box(log p(y_g)) (r_g - b_g) + b_g] with b_g the leave-one-out mean: in value the
    mean reward. `normalize` (r minus the group's minimum, no baseline) and `rbf` (exp(r)) are
    published transforms; clipping the log-probability by value stops the gradient outside. All
    three move the optimum and are kept for comparison.
    """
    samples = distribution.sample(noise)
    log_prob = distribution.log_prob(samples)
    if clip_log_prob is not None:
        # Outside of the interval the gradient is 0: such samples count for nothing, hence a bias.
        log_prob = log_prob.clamp(*clip_log_prob)
    rewards = reward_of(samples)
    if transform == "rbf":
        rewards = rewards.exp()
    if transform == "normalize":
        # The minimum depends on the sample that it is subtracted from: no unbiased baseline.
        return (magic_box(log_prob) * (rewards - rewards.amin(0))).mean(0)
    if baseline == "none":
        return (magic_box(log_prob) * rewards).mean(0)
    other = leave_one_out(rewards)
    # The baseline is added back outside of the box, and not detached: the value stays the mean
    # reward, and so does its derivative by the reward's own parameters.
    return (magic_box(log_prob) * (rewards - other) + other).mean(0)
