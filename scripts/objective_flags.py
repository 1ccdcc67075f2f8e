"""The flags of every objective at once."""

from dataclasses import dataclass, fields
from typing import Annotated, Literal, get_type_hints

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.settings import (
    OBJECTIVES,
    EntropyWeight,
    HypergradientName,
    InnerEstimator,
    ObjectiveSpec,
    OuterDataName,
    Weights,
)
from mbrl_bilevel.ranges import Count, Positive, Range, choices, flag

ObjectiveName = Literal["mse", "nll", "beta_nll", "pg", "bilevel"]
Reward = Literal["identity", "scalar", "diagonal", "full", "diagonal_x", "full_x", "neural"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveFlags:
    objective: ObjectiveName = "nll"
    """What one gradient step minimises."""
    beta: Annotated[float, Range(0, 1)] = 0.5
    """Exponent of beta_nll."""
    reward: Reward | None = None
    """U of the reward."""
    inner_estimator: InnerEstimator = "exact"
    """How the policy gradient is estimated; neural rewards need reparameterized."""
    samples: Count = 8
    """Generations per datum of sampled estimators."""
    entropy_weight: EntropyWeight = 1.0
    """lambda; only the reward's scale relative to it matters."""
    outer_data: OuterDataName = "cross_fit"
    """What bilevel learns its reward on."""
    outer_folds: Annotated[int, Range(2, 2**31 - 1)] = 10
    """Folds of cross_fit."""
    hypergradient: HypergradientName = "closed_form"
    """How bilevel differentiates the outer level."""
    weights: Weights | None = None
    """w(x) = s(x)^(2 b) in the inner objective of bilevel."""
    weight_exponent: Annotated[float, Range(-4, 4)] = 0.5
    """b of power weights: 0 weights the mean as nll does, 1 as mse does."""
    outer_every: Count = 3
    """Inner steps per outer step."""
    outer_batch_size: Count = 128
    """Rows per member of an outer batch."""
    outer_learning_rate: Positive | None = None
    """Adam's for the reward."""

    def spec(self) -> ObjectiveSpec:
        """The settings of the objective that is named."""
        settings = OBJECTIVES.settings(self.objective)
        given = {f.name: getattr(self, f.name) for f in fields(settings)}
        hints = get_type_hints(settings)
        for name, value in given.items():
            known = choices(hints[name])
            if isinstance(value, str) and value not in known:
                raise InputError(f"{flag(name)} {value}: choose one of {', '.join(known)}")
        return settings(**{name: value for name, value in given.items() if value is not None})
