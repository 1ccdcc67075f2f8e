"""How the outer level finds its direction: in closed form, by a hypergradient, or by SOBA.

Each gives the gradient of the outer loss by phi, the parameters of the reward (and weights) that
the inner level is trained by, and keeps what it needs from one outer step to the next.
"""

import warnings
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.hypergradient import ConvergenceWarning, Estimator, Hypergradient
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.soba import Soba
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.nested_state import State
from mbrl_bilevel.objectives.inner_problem import InnerProblem, learned_parameters

# Of a hypergradient: through an inner level that is far from its optimum it may have any size, and
# the second moment of Adam would remember it for a hundred steps.
LARGEST_NORM = 100.0

InnerBatch = tuple[Float[Tensor, "e b d"], Float[Tensor, "e b n"]]
OuterBatch = Any  # what the outer loss of the inner problem reads: rows (x, y), or windows


class Direction(NamedTuple):
    """dF/dphi, without the parameters that the outer loss does not depend on, and metrics."""

    grad: Params
    metrics: dict[str, Tensor]


@runtime_checkable
class OuterStep(Protocol):
    """The direction of one outer step.

    `learning_rate` is the measured default of its Adam, `betas` are Adam's, and `warm_up` is the
    share of the training in which phi rests at first.
    """

    learning_rate: float
    betas: tuple[float, float]
    warm_up: float

    def __call__(
        self,
        network: GaussianEnsemble,
        inner: InnerProblem,
        inner_batch: InnerBatch,
        outer_batch: OuterBatch,
        generator: torch.Generator,
    ) -> Direction: ...

    def check(self) -> None:
        """Called at every evaluation, to warn of what went wrong since the last one."""

    def state(self) -> State: ...

    def load_state(self, state: State) -> None: ...


class ClosedForm:
    """The outer loss of the inner optimum in closed form, the fitted means held still (theory T6).

    It solves no linear system and differentiates nothing through the network; the reward must be a
    Mahalanobis reward. The direction is exact for the fitted means and bears the largest rate.
    """

    learning_rate, betas, warm_up = 8e-3, (0.9, 0.99), 0.0

    def __call__(
        self,
        network: GaussianEnsemble,
        inner: InnerProblem,
        inner_batch: InnerBatch,
        outer_batch: OuterBatch,
        generator: torch.Generator,
    ) -> Direction:
        x, y = outer_batch
        loss, nll = inner.outer_loss(network, x, y)
        phi = learned_parameters(inner)
        # A learned exponent of weights is in no closed form: without a gradient Adam skips it.
        gradients = torch.autograd.grad(loss, list(phi.values()), allow_unused=True)
        found = {k: g for k, g in zip(phi, gradients, strict=True) if g is not None}
        norm = torch.stack([g.norm() for g in found.values()]).norm()
        return Direction(found, {"nll": nll / y.shape[-1], "hypergradient_norm": norm})

    def check(self) -> None:
        """Nothing can go unsolved."""

    def state(self) -> State:
        return {}

    def load_state(self, state: State) -> None:
        """Nothing was kept."""


class HypergradientStep:
    """Implicit differentiation through the network by an estimator (theory T8).

    An untrained network says little of its optimum, hence the warm-up. Linear solves that the
    estimator sets aside (`Implicit.max_residual`) are counted, one per member, in the metric
    `linear_fallbacks`; the first of them are warned of.
    """

    learning_rate, betas, warm_up = 3e-3, (0.9, 0.99), 0.1

    def __init__(self, estimator: Estimator) -> None:
        self.estimator = estimator
        self.linear_state: Tensor | None = None
        self.unsolved: dict[str, Tensor] = {}  # linear solves set aside since the last evaluation
        self.warned = False

    def __call__(
        self,
        network: GaussianEnsemble,
        inner: InnerProblem,
        inner_batch: InnerBatch,
        outer_batch: OuterBatch,
        generator: torch.Generator,
    ) -> Direction:
        problem = inner.bilevel_problem(network)
        data = inner.frozen_batch(network, *inner_batch, generator)
        theta, phi = _point(network, inner)
        found = self.estimator(problem, theta, phi, data, outer_batch, self.linear_state)
        if found.state is not None:  # a start that is not finite would stay so for ever
            self.linear_state = torch.where(found.state.isfinite(), found.state, 0.0)
        self._note_unsolved(found)
        return _clipped(found)

    def _note_unsolved(self, found: Hypergradient) -> None:
        if found.fallbacks is None or found.linear is None:
            return
        # Summed on the device: to look at them at every outer step would wait for it.
        residual = found.linear.relative_residual.nan_to_num(torch.inf).max()
        new = {"count": found.fallbacks, "residual": residual}
        new["iterations"] = found.linear.iterations.max()
        old = self.unsolved or {k: torch.zeros_like(v) for k, v in new.items()}
        self.unsolved = {k: torch.maximum(old[k], v) for k, v in new.items()}
        self.unsolved["count"] = old["count"] + new["count"]

    def check(self) -> None:
        """Warns once of systems left unsolved; the metric `linear_fallbacks` counts on."""
        unsolved, self.unsolved = self.unsolved, {}
        if self.warned or not unsolved or not int(unsolved["count"]):
            return
        self.warned = True
        warnings.warn(
            f"the hypergradient's linear system was left unsolved {int(unsolved['count'])} times "
            f"since the last evaluation (relative residual up to {float(unsolved['residual']):.2g} "
            f"after {int(unsolved['iterations'])} iterations); such members take the first-order "
            "direction and are counted in outer/linear_fallbacks; a lower outer learning rate or "
            "larger outer batches help, and against negative curvature Gauss-Newton products "
            "(fisher)",
            ConvergenceWarning,
            stacklevel=2,
        )

    def state(self) -> State:
        return {} if self.linear_state is None else {"linear_state": self.linear_state}

    def load_state(self, state: State) -> None:
        self.linear_state = state.get("linear_state")


class SobaStep:
    """SOBA or MA-SOBA: the variable of the linear system moves one step an outer step.

    It has to keep up with the reward, hence the low rate. A direction that is a moving average
    already needs no first moment of Adam's.
    """

    learning_rate, warm_up = 1e-3, 0.1

    def __init__(self, soba: Soba) -> None:
        self.soba = soba
        self.betas = (0.0 if soba.averaging < 1.0 else 0.9, 0.99)

    def __call__(
        self,
        network: GaussianEnsemble,
        inner: InnerProblem,
        inner_batch: InnerBatch,
        outer_batch: OuterBatch,
        generator: torch.Generator,
    ) -> Direction:
        data = inner.frozen_batch(network, *inner_batch, generator)
        theta, phi = _point(network, inner)
        return _clipped(self.soba.step(theta, phi, data, outer_batch))

    def check(self) -> None:
        """Its residual is a metric; no step is set aside."""

    def state(self) -> State:
        return self.soba.state_dict()

    def load_state(self, state: State) -> None:
        self.soba.load_state_dict(state)


def _point(network: GaussianEnsemble, inner: InnerProblem) -> tuple[Params, Params]:
    """theta and phi as they are, cut off from any graph."""
    theta = {k: p.detach() for k, p in network.named_parameters()}
    return theta, {k: p.detach() for k, p in learned_parameters(inner).items()}


def _clipped(found: Hypergradient) -> Direction:
    """Scaled to a norm of at most LARGEST_NORM."""
    size = torch.stack([g.norm() for g in found.grad.values()]).norm()
    scale = (LARGEST_NORM / size).clamp(max=1.0)
    return Direction({k: scale * g for k, g in found.grad.items()}, found.metrics())
