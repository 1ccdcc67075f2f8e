"""From `--hypergradient` to an estimator, at settings that hold in minibatch training."""

from typing import Literal

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.hypergradient import Estimator
from mbrl_bilevel.bilevel.implicit import Implicit
from mbrl_bilevel.bilevel.linear_solve import CG
from mbrl_bilevel.bilevel.soba import Soba
from mbrl_bilevel.bilevel.unrolled import Unrolled
from mbrl_bilevel.bilevel.value_gap import ValueGap
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.gated import GatedPolicyGradient
from mbrl_bilevel.objectives.network_problem import fisher_metric, training_problem
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient

HypergradientName = Literal[
    "closed_form", "implicit", "fisher", "unrolled", "value_gap", "soba", "ma_soba"
]


def outer_learning_rate(name: HypergradientName, given: float | None) -> float:
    """The rate that was given, or a measured default.

    The closed form's direction is exact for the fitted means and bears the largest steps; the
    linear system of soba has to keep up with the reward.
    """
    if given is not None:
        return given
    return {"closed_form": 8e-3, "soba": 1e-3, "ma_soba": 1e-3}.get(name, 3e-3)


def hypergradient(
    name: HypergradientName,
    network: GaussianEnsemble,
    inner: PolicyGradient | GatedPolicyGradient,
) -> Estimator | Soba | None:
    """The estimator that `--hypergradient` names; None for the closed form.

    Few products a step: linear systems are warm-started and move little between steps. Those of
    implicit and fisher whose relative residual still ends above 3 are set aside; the batches' own
    noise leaves 1 to 2.

    Raises:
        InputError: Fisher products of a full covariance.
    """
    if name == "closed_form" or isinstance(inner, GatedPolicyGradient):
        return None
    if name == "unrolled":
        return Unrolled(steps=5)
    if name == "value_gap":
        return ValueGap(nu=3e-4, steps=5)
    if name != "implicit" and network.covariance == "full":
        raise InputError(
            f"--hypergradient {name} is for --covariance diagonal; use closed_form, implicit, "
            "unrolled or value_gap"
        )
    fisher = GaussNewton(fisher_metric(inner))
    if name in ("soba", "ma_soba"):
        averaging = 0.1 if name == "ma_soba" else 1.0
        return Soba(
            training_problem(network, inner),
            fisher,
            damping=1e-3,
            averaging=averaging,
        )
    return Implicit(
        fisher if name == "fisher" else None,
        CG(),
        damping=1e-2,
        max_iterations=5,
        warn=False,
        check_every=None,
        max_residual=3.0,
    )
