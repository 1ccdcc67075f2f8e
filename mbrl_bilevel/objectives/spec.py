"""Every setting of every objective, with the defaults of library and command line."""

from dataclasses import dataclass
from typing import Annotated, Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import Covariance
from mbrl_bilevel.objectives.policy_gradient import Estimator as InnerEstimator
from mbrl_bilevel.ranges import Count, Positive, Range

HypergradientName = Literal[
    "closed_form", "implicit", "fisher", "unrolled", "value_gap", "soba", "ma_soba"
]
ObjectiveName = Literal["mse", "nll", "beta_nll", "pg", "bilevel"]
Reward = Literal["identity", "scalar", "diagonal", "full", "diagonal_x", "full_x", "neural"]
OuterData = Literal["cross_fit", "held_out", "train"]
Weights = Literal["none", "power", "learned"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """An objective by its settings, which are the flags of `train-model`; `build` makes it.

    Raises:
        InputError: settings that exclude one another, from `build` and `needs_two_means`; numbers
            out of range, from `build`.
    """

    objective: ObjectiveName = "nll"
    """What one gradient step minimises; nll trains means and noise apart where a tenth of the
    targets or more are sparse (one value in more than half of the rows, as contact forces)."""
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


def needs_two_means(spec: ObjectiveSpec, covariance: Covariance) -> bool:
    """Whether the objective needs a model of two means and a gate.

    Raises:
        InputError: it was asked for, and the other flags exclude it.
    """
    if spec.objective != "bilevel" or spec.weights in ("none", "power"):
        return False
    if spec.hypergradient != "closed_form":
        return False
    fits = (
        spec.reward in (None, "diagonal_x")
        and spec.inner_estimator == "exact"
        and covariance == "diagonal"
    )
    if spec.weights == "learned" and not fits:
        raise InputError(
            "--weights learned by the closed form goes with --reward diagonal_x, a diagonal "
            "covariance and the exact estimator; choose --weights power or none for others"
        )
    return fits
