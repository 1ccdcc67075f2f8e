"""From the settings of an objective to the objective itself."""

import warnings
from functools import partial
from typing import Any

import torch

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.objectives.build_two_level import of_the_mean
from mbrl_bilevel.objectives.closed_form import ClosedFormPolicyGradient, Rule
from mbrl_bilevel.objectives.faithful import Faithful
from mbrl_bilevel.objectives.likelihood import MANY, MSE, NLL, BetaNLL
from mbrl_bilevel.objectives.natural import Natural
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.objectives.settings import (
    OBJECTIVES,
    BetaNLLSettings,
    BilevelSettings,
    FaithfulSettings,
    MSESettings,
    NaturalSettings,
    NLLSettings,
    OuterSettings,
    PolicyGradientSettings,
    StudentTSettings,
)
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.objectives.student_t import StudentT
from mbrl_bilevel.objectives.visited import Policy
from mbrl_bilevel.rewards.closed_form import diagonal_rule, full_rule, scalar_rule
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis
from mbrl_bilevel.training.objective import Objective


def build(
    spec: ObjectiveSpec,
    model: DynamicsModel,
    train: Transitions,
    held_out: Transitions,
    *,
    steps: int,
    generator: torch.Generator,
    policy: Policy | None = None,
) -> Objective:
    """The objective of a fit of `steps` steps to `train`, on the device of the model.

    The model's standardisers must be fitted. An objective that leaves rows out for some members
    says so by its `rows`, which the fit loop obeys.

    Args:
        policy: the one that `BilevelSettings.visited_by` names.

    Raises:
        InputError: settings that were never registered or exclude the model's covariance, a model
            whose network is of another kind, too few episodes to hold any out, or a policy that is
            missing or that the objective does not follow.
    """
    make, kind = OBJECTIVES.builder(spec), model.network.kind
    if kind != spec.kind:
        raise InputError(
            f"objective {OBJECTIVES.name(spec)} trains a network of kind {spec.kind!r}, the model "
            f"has one of kind {kind!r}: build it by DynamicsModel(..., kind={spec.kind!r})"
        )
    follows = isinstance(spec, BilevelSettings) and spec.outer_objective == "visited"
    if follows and policy is None:
        raise InputError("--outer-objective visited: give the policy that --visited-by names")
    if policy is not None and not follows:
        raise InputError(
            f"objective {OBJECTIVES.name(spec)} follows no policy: leave it out, or choose bilevel "
            "with the outer objective visited"
        )
    pays = isinstance(spec, PolicyGradientSettings | OuterSettings) and not of_the_mean(spec)
    # These losses have no counterpart of the two parts in which NLL then trains.
    if pays and model.network.held_share >= MANY:
        warnings.warn(
            f"objective {OBJECTIVES.name(spec)} with many sparse targets fits the others badly, or "
            "their noise; nll, beta_nll and mse are meant for such data",
            stacklevel=2,
        )
    # Only where it is followed: objectives of one's own know no such argument.
    options = {"policy": policy} if follows else {}
    objective: Objective = make(
        spec, model, train, held_out, steps=steps, generator=generator, **options
    )
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
