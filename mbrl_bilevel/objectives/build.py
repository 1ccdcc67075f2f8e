"""From the settings of an objective to the objective itself."""

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.objectives.closed_form import ClosedFormPolicyGradient, Rule
from mbrl_bilevel.objectives.faithful import Faithful
from mbrl_bilevel.objectives.inner_problem import InnerProblem
from mbrl_bilevel.objectives.likelihood import MANY, MSE, NLL, BetaNLL
from mbrl_bilevel.objectives.mean_reward import MeanReward
from mbrl_bilevel.objectives.named_outer_steps import outer_step
from mbrl_bilevel.objectives.natural import Natural
from mbrl_bilevel.objectives.outer_data import (
    OuterBatches,
    OuterData,
    OuterWindows,
    cross_fitted,
    same_for_all,
)
from mbrl_bilevel.objectives.outer_objectives import KStepError
from mbrl_bilevel.objectives.outer_steps import ClosedForm, OuterStep
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.objectives.separate import SeparateRegression
from mbrl_bilevel.objectives.settings import (
    OBJECTIVES,
    BetaNLLSettings,
    BilevelSettings,
    FaithfulSettings,
    MSESettings,
    NaturalSettings,
    NLLSettings,
    ObjectiveSpec,
    OuterSettings,
    PolicyGradientSettings,
    ResidualRewardSettings,
    SeparateSettings,
    StudentTSettings,
    TwoMeansSettings,
)
from mbrl_bilevel.objectives.student_t import StudentT
from mbrl_bilevel.objectives.two_level import TwoLevel
from mbrl_bilevel.objectives.two_means import TwoMeanRegression
from mbrl_bilevel.objectives.weights import PrecisionWeights
from mbrl_bilevel.rewards.closed_form import diagonal_rule, full_rule, scalar_rule
from mbrl_bilevel.rewards.mahalanobis import Form, Mahalanobis
from mbrl_bilevel.rewards.neural import NeuralReward
from mbrl_bilevel.training.objective import Objective


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
        InputError: settings that were never registered or exclude the model's covariance, a model
            whose network is of another kind, or too few episodes to hold any out.
    """
    make, kind = OBJECTIVES.builder(spec), model.network.kind
    if kind != spec.kind:
        raise InputError(
            f"objective {OBJECTIVES.name(spec)} trains a network of kind {spec.kind!r}, the model "
            f"has one of kind {kind!r}: build it by DynamicsModel(..., kind={spec.kind!r})"
        )
    pays = isinstance(spec, PolicyGradientSettings | OuterSettings) and not _of_the_mean(spec)
    # These losses have no counterpart of the two parts in which NLL then trains.
    if pays and model.network.held_share >= MANY:
        warnings.warn(
            f"objective {OBJECTIVES.name(spec)} with many sparse targets fits the others badly, or "
            "their noise; nll, beta_nll and mse are meant for such data",
            stacklevel=2,
        )
    objective: Objective = make(spec, model, train, held_out, steps=steps, generator=generator)
    return objective


def mse(spec: MSESettings, *_: Any, **__: Any) -> MSE:
    return MSE()


def nll(spec: NLLSettings, *_: Any, **__: Any) -> NLL:
    return NLL()


def beta_nll(spec: BetaNLLSettings, *_: Any, **__: Any) -> BetaNLL:
    return BetaNLL(spec.beta)


def faithful(spec: FaithfulSettings, *_: Any, **__: Any) -> Faithful:
    return Faithful()


def natural(spec: NaturalSettings, *_: Any, **__: Any) -> Natural:
    return Natural()


def student_t(spec: StudentTSettings, *_: Any, **__: Any) -> StudentT:
    return StudentT(spec.degrees_of_freedom)


def policy_gradient(
    spec: PolicyGradientSettings, model: DynamicsModel, *_: Any, **__: Any
) -> PolicyGradient:
    inner: dict[str, Any] = {
        "estimator": spec.inner_estimator,
        "samples": spec.samples,
        "lam": spec.entropy_weight,
    }
    outputs, device = model.network.outputs, model.elites.device
    # U = I is one number here, which nothing moves.
    if spec.reward == "identity":
        return PolicyGradient(Mahalanobis(outputs, form="scalar").to(device), **inner)
    diagonal_model = model.network.covariance == "diagonal"
    rules: dict[str, Rule] = {
        "scalar": scalar_rule,
        "diagonal": diagonal_rule,
        # Refuses a diagonal model: its S_ii would be the variance of y_i given the other y_j (T4).
        "full": partial(full_rule, diagonal_model=diagonal_model),
    }
    reward = Mahalanobis(outputs, form=spec.reward)
    return ClosedFormPolicyGradient(reward, rules[spec.reward], **inner).to(device)


def separate(
    spec: SeparateSettings,
    model: DynamicsModel,
    train: Transitions,
    held_out: Transitions,
    *,
    steps: int,
    generator: torch.Generator,
) -> TwoLevel:
    inner = SeparateRegression(model.network, generator=generator).to(model.elites.device)
    outer = _outer_data(spec, model, train, held_out, generator)
    return _two_level(spec, inner, outer, ClosedForm(), steps)


def two_means(
    spec: TwoMeansSettings,
    model: DynamicsModel,
    train: Transitions,
    held_out: Transitions,
    *,
    steps: int,
    generator: torch.Generator,
) -> TwoLevel:
    inner = TwoMeanRegression(model.network, generator=generator).to(model.elites.device)
    outer = _outer_data(spec, model, train, held_out, generator)
    return _two_level(spec, inner, outer, ClosedForm(), steps)


def residual_reward(
    spec: ResidualRewardSettings,
    model: DynamicsModel,
    train: Transitions,
    held_out: Transitions,
    *,
    steps: int,
    generator: torch.Generator,
) -> TwoLevel:
    inner = _learned_inner(spec, model, generator).to(model.elites.device)
    outer = _outer_data(spec, model, train, held_out, generator)
    return _two_level(spec, inner, outer, ClosedForm(), steps)


def bilevel(
    spec: BilevelSettings,
    model: DynamicsModel,
    train: Transitions,
    held_out: Transitions,
    *,
    steps: int,
    generator: torch.Generator,
) -> TwoLevel:
    device, network = model.elites.device, model.network
    inner: MeanReward | PolicyGradient
    if _of_the_mean(spec):
        inner = MeanReward(network.outputs, KStepError(model)).to(device)
        outer = _outer_data(spec, model, train, held_out, generator, horizon=spec.outer_horizon)
    else:
        inner = _learned_inner(spec, model, generator).to(device)
        outer = _outer_data(spec, model, train, held_out, generator)
    step = outer_step(spec.differentiated_by, network, inner)
    return _two_level(spec, inner, outer, step, steps)


def _of_the_mean(spec: ObjectiveSpec) -> bool:
    return isinstance(spec, BilevelSettings) and spec.learned_reward == "mean"


def _two_level(
    spec: OuterSettings, inner: InnerProblem, outer: OuterData, step: OuterStep, steps: int
) -> TwoLevel:
    return TwoLevel(
        inner,
        outer,
        step,
        name=OBJECTIVES.name(spec),
        every=spec.every,
        learning_rate=spec.learning_rate,
        steps=steps,
    )


def _outer_data(
    spec: OuterSettings,
    model: DynamicsModel,
    train: Transitions,
    held_out: Transitions,
    generator: torch.Generator,
    horizon: int | None = None,
) -> OuterData:
    """Rows of the outer level, or windows of so many steps."""
    # On the training data, for comparison alone, the outer level trusts what was memorised.
    part = held_out if spec.outer_data == "held_out" else train

    def make(rows: Tensor, order: torch.Generator) -> OuterBatches | OuterWindows:
        if horizon is not None:
            return OuterWindows(model, part, rows, horizon, spec.batch_size, order)
        return OuterBatches(*model.encode(part), rows, spec.batch_size, order)

    if spec.outer_data == "cross_fit":
        return cross_fitted(part, model.members, make, folds=spec.outer_folds, generator=generator)
    return same_for_all(part, model.members, make, generator=generator)


def _learned_inner(
    spec: ResidualRewardSettings | BilevelSettings,
    model: DynamicsModel,
    generator: torch.Generator,
) -> PolicyGradient:
    reward = _learned_reward(spec, model, generator)
    weights = None
    # A neural reward has no U(x), hence no s(x) to weigh the data by.
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
    spec: ResidualRewardSettings | BilevelSettings,
    model: DynamicsModel,
    generator: torch.Generator,
) -> Mahalanobis | NeuralReward:
    name = spec.learned_reward if isinstance(spec, BilevelSettings) else spec.reward
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
    # U = lam / 2 asks for S = I (theory T3): the covariance of standardised targets, and that of an
    # untrained network.
    base = Mahalanobis(
        network.outputs,
        form=form,
        inputs=inputs,
        initial=0.5 * spec.entropy_weight,
        generator=generator,
    )
    if name != "neural":
        return base
    return NeuralReward(base, network.inputs, generator=generator)
