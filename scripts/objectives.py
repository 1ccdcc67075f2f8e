"""From the flags of `train-model` to the objective that they name."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.gaussian import Covariance
from mbrl_bilevel.objectives.bilevel import Bilevel, OuterBatches
from mbrl_bilevel.objectives.closed_form import ClosedFormPolicyGradient, Rule
from mbrl_bilevel.objectives.gated import GatedPolicyGradient
from mbrl_bilevel.objectives.likelihood import MSE, NLL, BetaNLL, many_sparse
from mbrl_bilevel.objectives.policy_gradient import Estimator as InnerEstimator
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.objectives.weights import PrecisionWeights
from mbrl_bilevel.rewards.closed_form import (
    check_entropy_weight,
    diagonal_rule,
    full_rule,
    scalar_rule,
)
from mbrl_bilevel.rewards.mahalanobis import Form, Mahalanobis
from mbrl_bilevel.rewards.neural import NeuralReward
from mbrl_bilevel.scripts.flags import Count, Positive, Range
from mbrl_bilevel.scripts.hypergradients import (
    HypergradientName,
    hypergradient,
    outer_learning_rate,
)
from mbrl_bilevel.training.batches import cross_fit
from mbrl_bilevel.training.objective import Objective
from mbrl_bilevel.training.trainer import Samples

ObjectiveName = Literal["mse", "nll", "beta_nll", "pg", "bilevel"]
Reward = Literal["identity", "scalar", "diagonal", "full", "diagonal_x", "full_x", "neural"]
OuterData = Literal["cross_fit", "held_out", "train"]
Weights = Literal["none", "power", "learned"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveFlags:
    """What `train-model` says of its objective."""

    objective: ObjectiveName = "nll"
    """What one gradient step minimises; nll trains means and noise apart where many targets
    are sparse (one value in most rows, as contact forces)."""
    beta: Annotated[float, Range(0, 1)] = 0.5
    """Exponent of beta_nll."""
    reward: Reward | None = None
    """U of the reward: fixed by its closed form in pg (default diagonal), learned in bilevel
    (default diagonal_x, which depends on the input)."""
    inner_estimator: InnerEstimator = "exact"
    """How the policy gradient is estimated; neural rewards need reparameterized."""
    samples: Count = 8
    """Generations per datum of sampled estimators."""
    entropy_weight: Annotated[float, Range(1e-6, 1e6)] = 1.0
    """lambda; only the reward's scale relative to it matters."""
    outer_data: OuterData = "cross_fit"
    """What bilevel learns its reward on: per member the fold of episodes left out from it, the
    held-out episodes, or (for comparison) the training data itself."""
    outer_folds: Annotated[int, Range(2, 2**31 - 1)] = 10
    """Folds of cross_fit; fewer where there are fewer episodes. Each member leaves one out."""
    hypergradient: HypergradientName = "closed_form"
    """How bilevel differentiates the outer level: closed_form holds the fitted means still;
    implicit solves by the inner Hessian (five warm-started products), fisher by the Fisher matrix;
    unrolled differentiates through five inner gradient steps, value_gap estimates the same by first
    derivatives; soba moves the linear system one step an outer step, ma_soba averages its
    directions."""
    weights: Weights | None = None
    """w(x) = s(x)^(2 b) in the inner objective of bilevel: none; power, a fixed b; or learned: the
    inner level is solved for b = 1 and b = 0, and the outer level learns per input and dimension
    which mean to trust (with an implicit hypergradient it learns the exponent b instead). Default:
    learned where reward, covariance and estimators allow it, else power."""
    weight_exponent: Annotated[float, Range(-4, 4)] = 0.5
    """b of power weights: 0 weights the mean as nll does, 1 as mse does."""
    outer_every: Count = 3
    """Inner steps per outer step."""
    outer_batch_size: Count = 128
    """Rows per member of an outer batch."""
    outer_learning_rate: Positive | None = None
    """Adam's for the reward, at the start of its cosine schedule. Default: 8e-3 for closed_form,
    1e-3 for soba and ma_soba, whose linear system has to keep up, 3e-3 for the rest."""


class Prepared(NamedTuple):
    """An objective, and the training rows of each member where the objective decides them."""

    objective: Objective
    rows: Tensor | None = None


def prepare(
    flags: ObjectiveFlags,
    model: DynamicsModel,
    train: Transitions,
    held_out: Samples,
    steps: int,
    generator: torch.Generator,
) -> Prepared:
    """The objective that `--objective` names, on the device of the model.

    Raises:
        InputError: flags that exclude one another, or too few episodes to hold any out.
    """
    if flags.objective in ("pg", "bilevel"):
        check_entropy_weight(flags.entropy_weight)
    match flags.objective:
        case "mse":
            return Prepared(MSE())
        case "nll":
            return Prepared(NLL(sparse=many_sparse(model.encode(train)[1])))
        case "beta_nll":
            return Prepared(BetaNLL(flags.beta))
        case "pg":
            return Prepared(_policy_gradient(flags, model))
        case "bilevel":
            return _bilevel(flags, model, train, held_out, steps, generator)


def _policy_gradient(flags: ObjectiveFlags, model: DynamicsModel) -> PolicyGradient:
    diagonal_model = model.network.covariance == "diagonal"
    rules: dict[str, Rule] = {
        "scalar": scalar_rule,
        "diagonal": diagonal_rule,
        "full": partial(full_rule, diagonal_model=diagonal_model),
    }
    name = flags.reward or "diagonal"
    inner: dict[str, Any] = {
        "estimator": flags.inner_estimator,
        "samples": flags.samples,
        "lam": flags.entropy_weight,
    }
    outputs, device = model.network.outputs, model.elites.device
    if name == "identity":
        return PolicyGradient(Mahalanobis(outputs, form="scalar").to(device), **inner)
    if name not in rules:
        raise InputError(
            f"--objective pg --reward {name}: it has no closed form; choose identity, scalar, "
            "diagonal or full, or learn it with --objective bilevel"
        )
    form: Form = name  # type: ignore[assignment]
    reward = Mahalanobis(outputs, form=form)
    return ClosedFormPolicyGradient(reward, rules[name], **inner).to(device)


def _bilevel(
    flags: ObjectiveFlags,
    model: DynamicsModel,
    train: Transitions,
    held_out: Samples,
    steps: int,
    generator: torch.Generator,
) -> Prepared:
    inner = _learned_inner(flags, model, generator).to(model.elites.device)
    samples = Samples(*model.encode(train))
    rows, outer = _outer(flags, model.members, train, samples, held_out, generator)
    objective = Bilevel(
        inner,
        outer,
        estimator=hypergradient(flags.hypergradient, model.network, inner),
        every=flags.outer_every,
        learning_rate=outer_learning_rate(flags.hypergradient, flags.outer_learning_rate),
        steps=steps,
    )
    return Prepared(objective, rows)


def gated(flags: ObjectiveFlags, covariance: Covariance) -> bool:
    """Whether the objective needs a model of two means and a gate.

    Raises:
        InputError: it was asked for, and the other flags exclude it.
    """
    if flags.objective != "bilevel" or flags.weights in ("none", "power"):
        return False
    if flags.hypergradient != "closed_form":
        return False
    fits = (
        flags.reward in (None, "diagonal_x")
        and flags.inner_estimator == "exact"
        and covariance == "diagonal"
    )
    if flags.weights == "learned" and not fits:
        raise InputError(
            "--weights learned by the closed form goes with --reward diagonal_x, a diagonal "
            "covariance and the exact estimator; choose --weights power or none for others"
        )
    return fits


def _learned_inner(
    flags: ObjectiveFlags, model: DynamicsModel, generator: torch.Generator
) -> PolicyGradient | GatedPolicyGradient:
    network = model.network
    if gated(flags, network.covariance):
        return GatedPolicyGradient(network, generator=generator)
    reward = _learned_reward(flags, model, generator)
    weights = None
    if flags.weights != "none" and isinstance(reward, Mahalanobis):
        learn = flags.weights == "learned"
        weights = PrecisionWeights(reward, flags.entropy_weight, flags.weight_exponent, learn=learn)
    return PolicyGradient(
        reward,
        estimator=flags.inner_estimator,
        samples=flags.samples,
        lam=flags.entropy_weight,
        weights=weights,
    )


def _learned_reward(
    flags: ObjectiveFlags, model: DynamicsModel, generator: torch.Generator
) -> Mahalanobis | NeuralReward:
    name = flags.reward or "diagonal_x"
    if name == "identity":
        raise InputError("--objective bilevel --reward identity: nothing is left to learn; use pg")
    network = model.network
    form: Form = "diagonal"
    for candidate in ("scalar", "diagonal", "full"):
        if name.startswith(candidate):
            form = candidate
    if form == "full" and network.covariance == "diagonal":
        raise InputError(
            f"--reward {name} under --covariance diagonal gives variances that are too small; "
            "choose --covariance full or a diagonal reward"
        )
    inputs = network.inputs if name.endswith("_x") else None
    base = Mahalanobis(
        network.outputs,
        form=form,
        inputs=inputs,
        initial=0.5 * flags.entropy_weight,
        generator=generator,
    )
    if name != "neural":
        return base
    if flags.inner_estimator == "exact" or flags.hypergradient == "closed_form":
        raise InputError(
            "--reward neural has no closed form: add --inner-estimator reparameterized and "
            "--hypergradient fisher, or another but closed_form"
        )
    return NeuralReward(base, network.inputs, generator=generator)


def _outer(
    flags: ObjectiveFlags,
    members: int,
    train: Transitions,
    samples: Samples,
    held_out: Samples,
    generator: torch.Generator,
) -> tuple[Tensor | None, OuterBatches]:
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    order = torch.Generator(generator.device).manual_seed(seed)
    if flags.outer_data == "cross_fit":
        folds = max(members, min(flags.outer_folds, train.episodes))
        rows, left_out = cross_fit(train.episode, members, generator, folds, train.group)
        return rows, OuterBatches(*samples, left_out, flags.outer_batch_size, order)
    data = held_out if flags.outer_data == "held_out" else samples
    every_row = torch.arange(len(data.x), device=data.x.device).expand(members, -1)
    return None, OuterBatches(*data, every_row, flags.outer_batch_size, order)
