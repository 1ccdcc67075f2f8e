"""From the settings of an objective with an outer level to the objective itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.objectives.inner_problem import InnerProblem
from mbrl_bilevel.objectives.mean_reward import MeanReward
from mbrl_bilevel.objectives.named_outer_steps import outer_step
from mbrl_bilevel.objectives.outer_data import (
    OuterBatches,
    OuterData,
    OuterSource,
    OuterWindows,
    cross_fitted,
    same_for_all,
)
from mbrl_bilevel.objectives.outer_objectives import KStepError, OuterObjective, visited_error
from mbrl_bilevel.objectives.outer_steps import ClosedForm, OuterStep
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.objectives.separate import SeparateRegression
from mbrl_bilevel.objectives.settings import (
    OBJECTIVES,
    BilevelSettings,
    OuterSettings,
    ResidualRewardSettings,
    SeparateSettings,
    TwoMeansSettings,
)
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.objectives.two_level import TwoLevel
from mbrl_bilevel.objectives.two_means import TwoMeanRegression
from mbrl_bilevel.objectives.visited import Policy, VisitedBatches
from mbrl_bilevel.objectives.weights import PrecisionWeights
from mbrl_bilevel.rewards.mahalanobis import Form, Mahalanobis
from mbrl_bilevel.rewards.neural import NeuralReward


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
    policy: Policy | None = None,
) -> TwoLevel:
    device, network = model.elites.device, model.network
    inner: MeanReward | PolicyGradient
    if of_the_mean(spec):
        error: OuterObjective = KStepError(model) if policy is None else visited_error
        inner = MeanReward(network.outputs, error).to(device)
    else:
        inner = _learned_inner(spec, model, generator).to(device)

    def make(data: Transitions, rows: Tensor, order: torch.Generator) -> OuterSource:
        size, horizon = spec.batch_size, spec.outer_horizon
        if policy is not None:
            return VisitedBatches(
                *(model, policy, data, rows), horizon=horizon, batch_size=size, generator=order
            )
        if spec.outer_objective == "k_step":
            return OuterWindows(model, data, rows, horizon, size, order)
        return OuterBatches(*model.encode(data), rows, size, order)

    outer = _outer_data(spec, model, train, held_out, generator, make)
    step = outer_step(spec.differentiated_by, network, inner)
    return _two_level(spec, inner, outer, step, steps)


def of_the_mean(spec: ObjectiveSpec) -> bool:
    """Whether the reward is of the mean alone."""
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
    make_of: Callable[[Transitions, Tensor, torch.Generator], OuterSource] | None = None,
) -> OuterData:
    """Batches of the outer level, by default of plain rows."""
    # On the training data, for comparison alone, the outer level trusts what was memorised.
    part = held_out if spec.outer_data == "held_out" else train

    def make(rows: Tensor, order: torch.Generator) -> OuterSource:
        if make_of is not None:
            return make_of(part, rows, order)
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
