"""From the settings of an objective to the objective itself."""

import warnings
from functools import partial
from typing import Any

import torch

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.objectives.bilevel import Bilevel
from mbrl_bilevel.objectives.closed_form import ClosedFormPolicyGradient, Rule
from mbrl_bilevel.objectives.likelihood import MANY, MSE, NLL, BetaNLL
from mbrl_bilevel.objectives.named_outer_steps import outer_step
from mbrl_bilevel.objectives.outer_data import OuterData, cross_fitted, same_for_all
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.objectives.spec import ObjectiveSpec, needs_two_means
from mbrl_bilevel.objectives.two_means import TwoMeanRegression
from mbrl_bilevel.objectives.weights import PrecisionWeights
from mbrl_bilevel.ranges import check_ranges
from mbrl_bilevel.rewards.closed_form import diagonal_rule, full_rule, scalar_rule
from mbrl_bilevel.rewards.mahalanobis import Form, Mahalanobis
from mbrl_bilevel.rewards.neural import NeuralReward
from mbrl_bilevel.training.objective import Objective
from mbrl_bilevel.training.trainer import Samples


def build(
    spec: ObjectiveSpec,
    model: DynamicsModel,
    train: Transitions,
    held_out: Transitions,
    *,
    steps: int,
    generator: torch.Generator,
) -> Objective:
    """The objective of a fit of `steps` steps to `train`, on the device of the model.

    The model's standardisers must be fitted. An objective that leaves rows out for some members
    says so by its `rows`, which the fit loop obeys.

    Raises:
        InputError: a number out of range, settings that exclude one another, a model without the
            gate that they need, or too few episodes to hold any out.
    """
    check_ranges(spec)
    if spec.objective in ("pg", "bilevel") and model.network.held_share >= MANY:
        warnings.warn(
            f"objective {spec.objective} with many sparse targets fits the others badly, or their "
            "noise; nll, beta_nll and mse are meant for such data",
            stacklevel=2,
        )
    match spec.objective:
        case "mse":
            return MSE()
        case "nll":
            return NLL()
        case "beta_nll":
            return BetaNLL(spec.beta)
        case "pg":
            return _policy_gradient(spec, model)
        case "bilevel":
            return _bilevel(spec, model, train, held_out, steps, generator)


def _policy_gradient(spec: ObjectiveSpec, model: DynamicsModel) -> PolicyGradient:
    diagonal_model = model.network.covariance == "diagonal"
    rules: dict[str, Rule] = {
        "scalar": scalar_rule,
        "diagonal": diagonal_rule,
        "full": partial(full_rule, diagonal_model=diagonal_model),
    }
    name = spec.reward or "diagonal"
    inner: dict[str, Any] = {
        "estimator": spec.inner_estimator,
        "samples": spec.samples,
        "lam": spec.entropy_weight,
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
    spec: ObjectiveSpec,
    model: DynamicsModel,
    train: Transitions,
    held_out: Transitions,
    steps: int,
    generator: torch.Generator,
) -> Bilevel:
    inner = _learned_inner(spec, model, generator).to(model.elites.device)
    return Bilevel(
        inner,
        _outer_data(spec, model, train, held_out, generator),
        outer_step(spec.hypergradient, model.network, inner),
        every=spec.outer_every,
        learning_rate=spec.outer_learning_rate,
        steps=steps,
    )


def _outer_data(
    spec: ObjectiveSpec,
    model: DynamicsModel,
    train: Transitions,
    held_out: Transitions,
    generator: torch.Generator,
) -> OuterData:
    size = spec.outer_batch_size
    if spec.outer_data == "cross_fit":
        samples = Samples(*model.encode(train))
        folds = spec.outer_folds
        return cross_fitted(
            train, samples, model.members, folds=folds, batch_size=size, generator=generator
        )
    part = held_out if spec.outer_data == "held_out" else train
    samples = Samples(*model.encode(part))
    return same_for_all(samples, model.members, batch_size=size, generator=generator)


def _learned_inner(
    spec: ObjectiveSpec, model: DynamicsModel, generator: torch.Generator
) -> PolicyGradient | TwoMeanRegression:
    network = model.network
    if needs_two_means(spec, network.covariance):
        return TwoMeanRegression(network, generator=generator)
    reward = _learned_reward(spec, model, generator)
    weights = None
    if spec.weights != "none" and isinstance(reward, Mahalanobis):
        learn = spec.weights == "learned"
        weights = PrecisionWeights(reward, spec.entropy_weight, spec.weight_exponent, learn=learn)
    return PolicyGradient(
        reward,
        estimator=spec.inner_estimator,
        samples=spec.samples,
        lam=spec.entropy_weight,
        weights=weights,
    )


def _learned_reward(
    spec: ObjectiveSpec, model: DynamicsModel, generator: torch.Generator
) -> Mahalanobis | NeuralReward:
    name = spec.reward or "diagonal_x"
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
        initial=0.5 * spec.entropy_weight,
        generator=generator,
    )
    if name != "neural":
        return base
    if spec.inner_estimator == "exact" or spec.hypergradient == "closed_form":
        raise InputError(
            "--reward neural has no closed form: add --inner-estimator reparameterized and "
            "--hypergradient fisher, or another but closed_form"
        )
    return NeuralReward(base, network.inputs, generator=generator)
