"""Settings of every objective, the defaults of library and command line; no import of torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.settings import Covariance
from mbrl_bilevel.ranges import Count, Positive, Range, check_ranges
from mbrl_bilevel.registry import Registry

if TYPE_CHECKING:
    import torch

    from mbrl_bilevel.data.transitions import Transitions
    from mbrl_bilevel.models.dynamics import DynamicsModel
    from mbrl_bilevel.training.objective import Objective

InnerEstimator = Literal["exact", "reparameterized", "score_function"]
FixedReward = Literal["identity", "scalar", "diagonal", "full"]
LearnedReward = Literal["scalar", "diagonal", "full", "diagonal_x", "full_x", "neural"]
OuterDataName = Literal["cross_fit", "held_out", "train"]
HypergradientName = Literal[
    "closed_form", "implicit", "fisher", "unrolled", "value_gap", "soba", "ma_soba"
]
Weights = Literal["none", "power", "learned"]
EntropyWeight = Annotated[float, Range(1e-6, 1e6)]


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """Settings of an objective, from which `objectives.build.build` makes it; one subclass each.

    Raises:
        InputError: a value out of range, or values that exclude one another.
    """

    def __post_init__(self) -> None:
        check_ranges(self)

    def build(
        self,
        model: "DynamicsModel",
        train: "Transitions",
        held_out: "Transitions",
        *,
        steps: int,
        generator: "torch.Generator",
    ) -> "Objective":
        """The objective of a fit; see `objectives.build.build`."""
        from mbrl_bilevel.objectives.build import build  # only now: it imports torch

        return build(self, model, train, held_out, steps=steps, generator=generator)


@dataclass(frozen=True, kw_only=True)
class MSESettings(ObjectiveSpec):
    """Mean squared error; the noise is set to that of held-out residuals."""


@dataclass(frozen=True, kw_only=True)
class NLLSettings(ObjectiveSpec):
    """Negative log-likelihood. Means and noise are trained separately if at least a tenth of the
    targets are sparse: one value in more than half of the rows, as of contact forces."""


@dataclass(frozen=True, kw_only=True)
class BetaNLLSettings(ObjectiveSpec):
    """Negative log-likelihood weighted by variance^beta (Seitzer et al. 2022)."""

    beta: Annotated[float, Range(0, 1)] = 0.5
    """Exponent: 0 is nll, 1 gives the mean the gradient of mse."""


@dataclass(frozen=True, kw_only=True)
class FaithfulSettings(ObjectiveSpec):
    """Squared error for the mean and all hidden layers; the noise heads learn by likelihood, with
    mean and hidden layers held still (Stirn et al. 2023)."""


@dataclass(frozen=True, kw_only=True)
class PolicyGradientSettings(ObjectiveSpec):
    """Policy gradient under a reward that is fixed, or follows its closed form (theory T4)."""

    reward: FixedReward = "diagonal"
    """Matrix U of the reward: the identity, or its closed form from held-out residuals."""
    inner_estimator: InnerEstimator = "exact"
    """Estimator of the policy gradient."""
    samples: Count = 8
    """Samples of the model per row, for estimators that sample."""
    entropy_weight: EntropyWeight = 1.0
    """Entropy weight lambda; only the reward's scale relative to it matters."""


@dataclass(frozen=True, kw_only=True)
class BilevelSettings(ObjectiveSpec):
    """Policy gradient under a reward that an outer level learns on data held out from it."""

    reward: LearnedReward = "diagonal_x"
    """Matrix U of the learned reward, or a neural reward; with _x it depends on the input."""
    inner_estimator: InnerEstimator = "exact"
    """Estimator of the policy gradient; neural rewards need reparameterized."""
    samples: Count = 8
    """Samples of the model per row, for estimators that sample."""
    entropy_weight: EntropyWeight = 1.0
    """Entropy weight lambda; only the reward's scale relative to it matters."""
    outer_data: OuterDataName = "cross_fit"
    """Data of the outer level: cross_fit, for each member a fold of episodes that it is not trained
    on; held_out, the held-out episodes; train, for comparison, the training data itself."""
    outer_folds: Annotated[int, Range(2, 2**31 - 1)] = 10
    """Folds of cross_fit, of which each member leaves one out; at most one per episode."""
    hypergradient: HypergradientName = "closed_form"
    """How the outer level is differentiated: closed_form holds the fitted means fixed; implicit
    solves a linear system of the inner Hessian (five warm-started products), fisher one of the
    Fisher matrix; unrolled differentiates through five inner gradient steps, value_gap estimates
    the same by first derivatives; soba takes one step on the linear system per outer step, ma_soba
    averages the directions of soba."""
    weights: Weights | None = None
    """Weights w(x) = s(x)^(2 b) of the inner objective. power: b is fixed; learned: the inner level
    is solved for b = 1 and for b = 0, and the outer level learns per input and dimension which mean
    to use (with an implicit hypergradient it learns b instead). Default: learned if reward,
    covariance and estimator allow it, else power."""
    weight_exponent: Annotated[float, Range(-4, 4)] = 0.5
    """Exponent b of power weights: 0 weights the mean as nll does, 1 as mse does."""
    outer_every: Count = 3
    """Inner steps per outer step."""
    outer_batch_size: Count = 128
    """Rows per member of an outer batch."""
    outer_learning_rate: Positive | None = None
    """Adam's learning rate for the reward, at the start of its cosine schedule. Default: 8e-3 for
    closed_form, 1e-3 for soba and ma_soba, 3e-3 for the others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        closed_form = self.inner_estimator == "exact" or self.hypergradient == "closed_form"
        if self.reward == "neural" and closed_form:
            raise InputError(
                "--reward neural has no closed form: add --inner-estimator reparameterized and "
                "--hypergradient fisher, or another but closed_form"
            )
        # Two means and a gate stand for learned weights where the outer level has a closed form.
        gated = self.weights == "learned" and self.hypergradient == "closed_form"
        if gated and not self._allows_two_means:
            raise InputError(NO_TWO_MEANS)

    @property
    def _allows_two_means(self) -> bool:
        return self.reward == "diagonal_x" and self.inner_estimator == "exact"


NO_TWO_MEANS = (
    "--weights learned by the closed form goes with --reward diagonal_x, a diagonal covariance and "
    "the exact estimator; choose --weights power or none for others"
)


def needs_two_means(spec: ObjectiveSpec, covariance: Covariance) -> bool:
    """Whether the objective needs a model of two means and a gate (`models.two_means`).

    Raises:
        InputError: it was asked for, and a full covariance excludes it.
    """
    if not isinstance(spec, BilevelSettings) or spec.weights in ("none", "power"):
        return False
    if spec.hypergradient != "closed_form":
        return False
    if spec.weights == "learned" and covariance != "diagonal":
        raise InputError(NO_TWO_MEANS)
    return spec._allows_two_means and covariance == "diagonal"


OBJECTIVES: Registry[ObjectiveSpec] = Registry("objective")
OBJECTIVES.register("mse", MSESettings, "mbrl_bilevel.objectives.build:mse")
OBJECTIVES.register("nll", NLLSettings, "mbrl_bilevel.objectives.build:nll")
OBJECTIVES.register("beta_nll", BetaNLLSettings, "mbrl_bilevel.objectives.build:beta_nll")
OBJECTIVES.register("faithful", FaithfulSettings, "mbrl_bilevel.objectives.build:faithful")
OBJECTIVES.register("pg", PolicyGradientSettings, "mbrl_bilevel.objectives.build:policy_gradient")
OBJECTIVES.register("bilevel", BilevelSettings, "mbrl_bilevel.objectives.build:bilevel")
