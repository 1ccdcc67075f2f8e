"""Outer steps by name, at settings that hold in minibatch training."""

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.implicit import Implicit
from mbrl_bilevel.bilevel.linear_solve import CG
from mbrl_bilevel.bilevel.soba import Soba
from mbrl_bilevel.bilevel.unrolled import Unrolled
from mbrl_bilevel.bilevel.value_gap import ValueGap
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.inner_problem import InnerProblem
from mbrl_bilevel.objectives.outer_steps import HypergradientStep, OuterStep, SobaStep
from mbrl_bilevel.objectives.settings import HypergradientName


def outer_step(
    name: HypergradientName, network: GaussianEnsemble, inner: InnerProblem
) -> OuterStep:
    """The outer step that `--hypergradient` names.

    Few products a step: linear systems are warm-started and move little between steps. Those of
    implicit and fisher whose relative residual still ends above 3 are set aside; the batches' own
    noise leaves 1 to 2.

    Raises:
        InputError: Fisher products of a full covariance, or of an inner level without them.
    """
    if name == "unrolled":
        # Each step of an unrolled derivative keeps its graph: memory grows with their number.
        return HypergradientStep(Unrolled(steps=5))
    if name == "value_gap":
        # Steps, for a network in training has no minimum to solve for. The difference errs by
        # nu^2, and by float32's rounding over nu.
        return HypergradientStep(ValueGap(nu=3e-4, steps=5))
    problem = inner.bilevel_problem(network)
    # The factor of a full covariance is no output of fixed size, which J^T H J needs.
    if name != "implicit" and problem.outputs is None:
        raise InputError(
            f"--hypergradient {name} is for --covariance diagonal; use implicit, unrolled or "
            "value_gap"
        )
    # The Hessian of a network in training is indefinite: v would grow along negative curvature.
    fisher = GaussNewton(problem.output_metric)
    if name in ("soba", "ma_soba"):
        averaging = 0.1 if name == "ma_soba" else 1.0
        # Damped, for without curvature along some directions v would never settle there.
        return SobaStep(Soba(problem, fisher, damping=1e-3, averaging=averaging))
    return HypergradientStep(
        Implicit(
            fisher if name == "fisher" else None,
            CG(),
            damping=1e-2,
            max_iterations=5,
            warn=False,  # HypergradientStep counts what is set aside, and warns once
            check_every=None,  # a look at the residual would wait for the device
            max_residual=3.0,
        )
    )
