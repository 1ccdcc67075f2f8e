"""Settings of every objective, the defaults of library and command line; no import of torch."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.settings import NetworkKind
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.ranges import BatchSize, Count, Positive, Range
from mbrl_bilevel.registry import Registry

InnerEstimator = Literal["exact", "reparameterized", "score_function"]
FixedReward = Literal["identity", "scalar", "diagonal", "full"]
ResidualReward = Literal["scalar", "diagonal", "full", "diagonal_x", "full_x"]
LearnedReward = Literal["scalar", "diagonal", "full", "diagonal_x", "full_x", "neural", "mean"]
OuterObjectiveName = Literal["k_step", "one_step", "visited"]
OuterDataName = Literal["cross_fit", "held_out", "train"]
HypergradientName = Literal["implicit", "fisher", "unrolled", "value_gap", "soba", "ma_soba"]
Weights = Literal["none", "power", "learned"]
EntropyWeight = Annotated[float, Range(1e-6, 1e6)]
Exponent = Annotated[float, Range(-4, 4)]


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
class NaturalSettings(ObjectiveSpec):
    """Negative log-likelihood of a network that gives natural parameters, mean over variance and
    the logarithm of the deviation (Immer et al. 2023)."""

    kind: ClassVar[NetworkKind] = "natural"


@dataclass(frozen=True, kw_only=True)
class StudentTSettings(ObjectiveSpec):
    """Student-t likelihood as a loss that counts outliers less; the model predicts a Gaussian,
    whose deviations are calibrated on held-out data."""

    degrees_of_freedom: Annotated[float, Range(0.1, 1e6)] = 4.0
    """Degrees of freedom, fixed: fewer count outliers less."""


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
class OuterSettings(ObjectiveSpec):
    """The outer level: what it learns on, and how often."""

    outer_data: OuterDataName = "cross_fit"
    """Data of the outer level: cross_fit, for each member a fold of episodes that it is not trained
    on; held_out, the held-out episodes; train, for comparison, the training data itself."""
    outer_folds: Annotated[int, Range(2, 2**31 - 1)] = 10
    """Folds of cross_fit, of which each member leaves one out; at most one per episode."""
    outer_every: Count | None = None
    """Inner steps per outer step. Default: 3; of bilevel with reward mean 20."""
    outer_batch_size: BatchSize | None = None
    """Rows, or windows, per member of an outer batch. Default: 128; of bilevel with k_step 64."""
    outer_learning_rate: Positive | None = None
    """Adam's learning rate of the outer level, at the start of its cosine schedule. Default: 8e-3;
    of bilevel with reward mean 4e-2, with others 3e-3, by soba and ma_soba 1e-3."""

    @property
    def every(self) -> int:
        """`outer_every`, or its default."""
        return self.outer_every or 3

    @property
    def batch_size(self) -> int:
        """`outer_batch_size`, or its default."""
        return self.outer_batch_size or 128

    @property
    def learning_rate(self) -> float | None:
        """`outer_learning_rate`; None stands for that of the outer step."""
        return self.outer_learning_rate


@dataclass(frozen=True, kw_only=True)
class SeparateSettings(OuterSettings):
    """Squared error for the mean; a noise network of its own learns by likelihood on data held out
    from the mean."""

    kind: ClassVar[NetworkKind] = "separate_noise"


@dataclass(frozen=True, kw_only=True)
class TwoMeansSettings(OuterSettings):
    """Two means per member, by squared error and by squared error over the noise's variance; noise
    and a gate between the two are learned on data held out from them, by likelihood. Nothing is
    differentiated through the fitted means."""

    kind: ClassVar[NetworkKind] = "two_means"


@dataclass(frozen=True, kw_only=True)
class ResidualRewardSettings(OuterSettings):
    """Policy gradient under a reward that is fitted to residuals of data held out from the model
    (theory T6): nothing is differentiated through the fitted mean."""

    reward: ResidualReward = "diagonal_x"
    """Matrix U of the reward; with _x it depends on the input."""
    inner_estimator: InnerEstimator = "exact"
    """Estimator of the policy gradient."""
    samples: Count = 8
    """Samples of the model per row, for estimators that sample."""
    entropy_weight: EntropyWeight = 1.0
    """Entropy weight lambda; only the reward's scale relative to it matters."""
    weights: Literal["none", "power"] = "power"
    """Weights of the inner objective: none, or w(x) = s(x)^(2 b), power."""
    weight_exponent: Exponent = 0.5
    """Exponent b of power weights: 0 weights the mean as nll does, 1 as mse does."""


@dataclass(frozen=True, kw_only=True)
class BilevelSettings(OuterSettings):
    """Policy gradient under a reward whose outer level differentiates an error on left-out data
    through the inner solution: that of open-loop predictions (theory T10), of one step where a
    policy goes (theory T12), or the likelihood of one step (theory T8)."""

    outer_objective: OuterObjectiveName = "k_step"
    """Loss of the outer level. k_step: open-loop error of the mean over --outer-horizon steps;
    one_step: negative log-likelihood; visited: error of one step (with reward mean: squared, else
    negative log-likelihood), rows weighted by how often a policy comes near them in the model."""
    outer_horizon: Count = 10
    """Steps of a window of k_step, which left-out episodes must have in a row; of visited, steps
    for which the policy is followed in the model."""
    visited_by: str | None = None
    """Policy of visited: the folder of a run of train-agent, or the name of a shipped policy."""
    reward: LearnedReward | None = None
    """Learned reward. mean, the default of k_step and visited: a weight of each target's squared
    error, beside the noise of --objective faithful. Of one_step (default diagonal_x) and visited:
    the matrix U, or a neural reward; with _x it depends on the input."""
    inner_estimator: InnerEstimator = "exact"
    """Estimator of the policy gradient; neural rewards need reparameterized."""
    samples: Count = 8
    """Samples of the model per row, for estimators that sample."""
    entropy_weight: EntropyWeight = 1.0
    """Entropy weight lambda; only the reward's scale relative to it matters. Not of mean."""
    hypergradient: HypergradientName | None = None
    """How the outer level is differentiated: implicit solves a linear system of the inner Hessian
    (five warm-started products), fisher one of the Fisher matrix; unrolled differentiates through
    five inner gradient steps, value_gap estimates the same by first derivatives; soba takes one
    step on the linear system per outer step, ma_soba averages the directions of soba. Default:
    fisher with reward mean, implicit with others."""
    weights: Weights = "power"
    """Weights w(x) = s(x)^(2 b) of the inner objective. power: b is fixed; learned: the outer level
    learns b. Not of mean."""
    weight_exponent: Exponent = 0.5
    """Exponent b of the weights, to begin with if it is learned: 0 weights the mean as nll does, 1
    as mse does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reward == "mean" and self.outer_objective == "one_step":
            raise InputError(
                "--reward mean fits the noise with the mean held still, so that the likelihood of "
                "one_step cannot be differentiated through both: choose --outer-objective k_step, "
                "or another reward"
            )
        if self.reward not in (None, "mean") and self.outer_objective == "k_step":
            raise InputError(
                f"--reward {self.reward} decides the noise too, of which the error of k_step knows "
                "nothing: add --outer-objective one_step, or choose --reward mean"
            )
        if self._of_the_mean and self.inner_estimator != "exact":
            raise InputError(
                f"--inner-estimator {self.inner_estimator}: --reward mean has nothing to sample; "
                "choose exact, or --outer-objective one_step"
            )
        if self.outer_objective == "visited" and self.visited_by is None:
            raise InputError(
                "--outer-objective visited: name the policy by --visited-by, a run of train-agent "
                "or a shipped policy"
            )
        if self.outer_objective != "visited" and self.visited_by is not None:
            raise InputError(
                f"--visited-by {self.visited_by} is of --outer-objective visited, not of "
                f"{self.outer_objective}: leave it out, or choose visited"
            )
        if self.reward == "neural" and self.inner_estimator == "exact":
            raise InputError(
                "--reward neural has no closed form: add --inner-estimator reparameterized"
            )

    @property
    def _of_the_mean(self) -> bool:
        return self.learned_reward == "mean"

    @property
    def every(self) -> int:
        return self.outer_every or (20 if self._of_the_mean else 3)

    @property
    def batch_size(self) -> int:
        return self.outer_batch_size or (64 if self.outer_objective == "k_step" else 128)

    @property
    def learning_rate(self) -> float | None:
        return self.outer_learning_rate or (4e-2 if self._of_the_mean else None)

    @property
    def learned_reward(self) -> LearnedReward:
        """`reward`, or its default."""
        return self.reward or ("diagonal_x" if self.outer_objective == "one_step" else "mean")

    @property
    def differentiated_by(self) -> HypergradientName:
        """`hypergradient`, or its default."""
        return self.hypergradient or ("fisher" if self._of_the_mean else "implicit")


OBJECTIVES: Registry[ObjectiveSpec] = Registry("objective")
OBJECTIVES.register("mse", MSESettings, "mbrl_bilevel.objectives.build:mse")
OBJECTIVES.register("nll", NLLSettings, "mbrl_bilevel.objectives.build:nll")
OBJECTIVES.register("beta_nll", BetaNLLSettings, "mbrl_bilevel.objectives.build:beta_nll")
OBJECTIVES.register("faithful", FaithfulSettings, "mbrl_bilevel.objectives.build:faithful")
OBJECTIVES.register("natural", NaturalSettings, "mbrl_bilevel.objectives.build:natural")
OBJECTIVES.register("student_t", StudentTSettings, "mbrl_bilevel.objectives.build:student_t")
OBJECTIVES.register("pg", PolicyGradientSettings, "mbrl_bilevel.objectives.build:policy_gradient")
TWO_LEVEL = "mbrl_bilevel.objectives.build_two_level"
OBJECTIVES.register("separate", SeparateSettings, f"{TWO_LEVEL}:separate")
OBJECTIVES.register("two_means", TwoMeansSettings, f"{TWO_LEVEL}:two_means")
OBJECTIVES.register("residual_reward", ResidualRewardSettings, f"{TWO_LEVEL}:residual_reward")
OBJECTIVES.register("bilevel", BilevelSettings, f"{TWO_LEVEL}:bilevel")
