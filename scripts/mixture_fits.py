"""A network of mixtures of Gaussians, trained by one of several losses and tested."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.models.mixture import Mixture, MixtureEnsemble
from mbrl_bilevel.objectives.mixture_losses import (
    policy_gradient,
    sampled_energy_score,
    squared_error_reward,
)
from mbrl_bilevel.training.batches import Batches, resample
from mbrl_bilevel.training.clipping import clip_by_member
from mbrl_bilevel.training.held_out import WORST, BestMembers
from mbrl_bilevel.training.learning_rate import LearningRate
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings

CHUNK = 4_096  # rows of an evaluation at once
Loss = Callable[[Mixture, Tensor, Tensor], Tensor]
"""One number per member, row and target, of a prediction, x [E, B, d] and y [E, B, n]."""


def likelihood(p: Mixture, x: Tensor, y: Tensor) -> Tensor:
    """Negative log-likelihood."""
    return -p.log_prob(y)


def energy_score(p: Mixture, x: Tensor, y: Tensor) -> Tensor:
    """Energy score in closed form."""
    return p.energy_score(y)


def energy_score_samples(count: int, generator: torch.Generator) -> Loss:
    """Energy score by `count` generations a row."""
    return lambda p, x, y: sampled_energy_score(p, y, p.sample(count, generator))


def squared_error(count: int, generator: torch.Generator) -> Loss:
    """Policy gradient on the Mahalanobis reward of U = I, by `count` generations a row."""

    def loss(p: Mixture, x: Tensor, y: Tensor) -> Tensor:
        generations = p.sample(count, generator)
        return policy_gradient(p, squared_error_reward(generations, y), generations)

    return loss


def learned_reward(reward: MixtureEnsemble, count: int, generator: torch.Generator) -> Loss:
    """Policy gradient on r = log m(y_hat | x) of a fitted mixture m, member by member."""

    def loss(p: Mixture, x: Tensor, y: Tensor) -> Tensor:
        generations = p.sample(count, generator)
        with torch.no_grad():
            log_density = reward(x).log_prob(generations)
        return policy_gradient(p, log_density, generations)

    return loss


def fit(
    network: MixtureEnsemble,
    loss: Loss,
    train: Samples,
    held_out: Samples,
    settings: FitSettings,
    generator: torch.Generator,
) -> None:
    """AdamW on the loss, summed over targets; each member ends at its best held-out NLL.

    As a fit of a dynamics model, with its schedule, clipping and bounded NLL.
    """
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    rate, best = LearningRate(optimizer, settings), BestMembers(network)
    rows = resample(len(train.x), network.members, "shared", generator)
    batches = Batches(rows, settings.batch_size, generator, shared=True)
    every = settings.evaluation_interval(len(held_out.x))
    for step in range(1, settings.steps + 1):
        chosen = next(batches)
        x, y = train.x[chosen], train.y[chosen]
        optimizer.zero_grad(set_to_none=True)
        loss(network(x), x, y).sum(-1).mean(-1).sum().backward()
        clip_by_member(parameters, settings.clip_norm)
        optimizer.step()
        rate.after_step()
        if step % every == 0 or step == settings.steps:
            best.update(network, held_out_nll(network, held_out).clamp(max=WORST).mean(-1))
    best.restore(network)


@torch.no_grad()
def held_out_nll(network: MixtureEnsemble, data: Samples) -> Float[Tensor, "e n"]:
    """Mean NLL of each member and target, in nats."""
    chunks = zip(data.x.split(CHUNK), data.y.split(CHUNK), strict=True)
    total = [network(x).log_prob(y).sum(-2) for x, y in chunks]
    return -torch.stack(total).sum(0) / len(data.x)


@torch.no_grad()
def evaluate(network: MixtureEnsemble, data: Samples) -> dict[str, Float[Tensor, "n"]]:
    """Means over rows of each target, standardised units, NLL in nats.

    Means over members [n]: `nll`, `bounded_nll` (no row counts for more than WORST),
    `energy_score`, `mse` of the predicted mean, `between`, the share of the predicted variance that
    lies between the components' means, and `kurtosis`, the excess kurtosis of (y - mean) /
    deviation over rows. `pooled_nll` [n] is of the equal mixture of members.
    """
    names = "nll", "bounded_nll", "energy_score", "mse", "between", "z", "z2", "z3", "z4"
    parts: dict[str, list[Tensor]] = {name: [] for name in (*names, "pooled_nll")}
    for x, y in zip(data.x.split(CHUNK), data.y.split(CHUNK), strict=True):
        p = network(x)
        mean, variance = p.moments()
        z = ((y - mean) / variance.sqrt()).double()
        found = {
            "nll": (nll := -p.log_prob(y)),
            "bounded_nll": nll.clamp(max=WORST),
            "energy_score": p.energy_score(y),
            "mse": (y - mean).square(),
            "between": p.between() / variance,
            "z": z, "z2": z**2, "z3": z**3, "z4": z**4,
            "pooled_nll": -p.pooled().log_prob(y),
        }  # fmt: skip
        for name, values in found.items():
            parts[name].append(values.double().sum(-2))
    mean_of = {name: torch.stack(values).sum(0) / len(data.x) for name, values in parts.items()}
    first, second, third, fourth = (mean_of[name] for name in ("z", "z2", "z3", "z4"))
    central = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
    kurtosis = central / (second - first**2) ** 2 - 3
    return {
        **{name: mean_of[name].mean(0) for name in names[:5]},
        "pooled_nll": mean_of["pooled_nll"],
        "kurtosis": kurtosis.mean(0),
    }
