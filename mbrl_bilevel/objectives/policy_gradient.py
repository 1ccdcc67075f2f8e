"""The inner level: a model as a policy that is paid by a reward and by its own entropy."""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.categorical import Categorical
from mbrl_bilevel.models.distributions import DiagonalGaussian, Gaussian
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.estimators import (
    Baseline,
    RewardOf,
    Transform,
    enumerated,
    reparameterized,
    score_function,
)
from mbrl_bilevel.objectives.network_problem import InnerData, training_problem
from mbrl_bilevel.objectives.settings import InnerEstimator as Estimator
from mbrl_bilevel.rewards.closed_form import check_entropy_weight
from mbrl_bilevel.training.objective import NothingLearned

Target = Float[Tensor, "*y b n"] | Int[Tensor, "*y b"]
Model = Callable[[Tensor], Gaussian | Categorical]


class PolicyGradient(nn.Module, NothingLearned):
    """The loss -J, J = mean_b w(x) (E[r(y_hat, y, x)] + lam H(p(. | x))) (theory T1).

    Called with a model (or its distribution), x and y it returns one loss per member. Rewards and
    entropies are summed over target dimensions, never averaged, by whatever estimator. The
    parameters of this module (the reward's, the weights') are the outer variable phi, so that
    `torch.func.functional_call` gives the loss as a function of phi.

    Args:
        reward: r(y_hat, y, x), see mbrl_bilevel.rewards.
        estimator: `exact` (theory T2; enumeration for categorical models), `reparameterized` or
            `score_function` (magic-box form), from `samples` generations a datum.
        lam: entropy weight lambda. Only the reward's scale over lam matters at the optimum.
        weights: w(x) > 0, of shape [*, B], or [*, B, n] for one per target dimension, which needs
            a diagonal model and a reward that is a sum over dimensions. Not normalised.
        baseline: of the score function; leave-one-out needs two samples.
        transform, clip_log_prob: published variants that move the optimum, for comparison only;
            see objectives.estimators.score_function.

    Raises:
        InputError: lam not above 0; options that exclude one another; an estimator that the model
            or the reward does not have.
    """

    name = "pg"
    selects_by: Literal["nll", "mse"] = "nll"

    def __init__(
        self,
        reward: nn.Module,
        *,
        estimator: Estimator = "exact",
        lam: float | Tensor = 1.0,
        samples: int = 8,
        weights: Callable[[Tensor], Tensor] | None = None,
        baseline: Baseline = "leave_one_out",
        transform: Transform = "none",
        clip_log_prob: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        check_entropy_weight(lam)
        for name, value, known in (
            ("estimator", estimator, Estimator),
            ("baseline", baseline, Baseline),
            ("transform", transform, Transform),
        ):
            if value not in get_args(known):
                raise InputError(f"{name} {value!r}: choose one of {', '.join(get_args(known))}")
        _check_options(estimator, samples, baseline, transform, clip_log_prob)
        # Any: what a reward has beside its call (expected, terms, logdet) is asked for at need.
        self.reward: Any = reward
        self.weights, self.lam = weights, lam
        self.estimator: Estimator = estimator
        self.samples, self.clip_log_prob = samples, clip_log_prob
        self.baseline: Baseline = baseline
        self.transform: Transform = transform

    def forward(
        self,
        model: Model | Gaussian | Categorical,
        x: Float[Tensor, "*x b d"],
        y: Target,
        generator: torch.Generator | None = None,
        *,
        noise: Float[Tensor, "g *e b n"] | None = None,
    ) -> tuple[Float[Tensor, "*e"], dict[str, Tensor]]:
        """Loss [E] and metrics `reward`, `entropy` [E] (means over the batch, as weighted).

        x and y are shared [B, .] or per member [E, B, .]; y holds classes [B] for categorical
        models. `noise` (from `draw_noise`) freezes the generations; else `generator` draws them.
        """
        distribution = model(x) if callable(model) else model
        weight = None if self.weights is None else self.weights(x)
        # a weight per dimension goes inside the sum over dimensions, one per datum outside
        inner = weight if weight is not None and weight.ndim == x.ndim else None
        entropy = distribution.entropy() if inner is None else self._entropy(distribution, inner)
        if self.estimator == "exact":
            expected = self._exact(distribution, x, y, inner)
        else:
            if noise is None:
                noise = self.draw_noise(distribution, generator)
            expected = self._sampled(self._reward_of(x, y, inner), distribution, noise)
        gain = expected + self.lam * entropy
        loss = -(gain if weight is None or inner is not None else weight * gain).mean(-1)
        metrics = {"reward": expected.mean(-1).detach(), "entropy": entropy.mean(-1).detach()}
        return loss, metrics

    def outer_loss(
        self,
        model: Callable[[Tensor], Gaussian],
        x: Float[Tensor, "*x b d"],
        y: Float[Tensor, "*y b n"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Outer NLL of the inner optimum S = (lam / 2) U^-1, the fitted mean held still.

        F(U) = tr(U S_res) / lam - logdet(U) / 2 + n log(pi lam) / 2 by its samples (theory T6);
        once to differentiate, once to log.

        Raises:
            InputError: the reward has no such optimum.
        """
        if not hasattr(self.reward, "logdet"):
            raise InputError(
                f"{type(self.reward).__name__} has no closed-form inner optimum: "
                "differentiate through the inner level instead (--objective bilevel)"
            )
        with torch.no_grad():
            # Held still: the mean's own answer to U is what only a hypergradient finds (theory T8).
            mean = model(x).mean
        nll = -self.reward(mean, y, x) / self.lam - 0.5 * self.reward.logdet(x)
        loss = nll.mean() + 0.5 * y.shape[-1] * math.log(math.pi * float(self.lam))
        return loss, loss.detach()

    def bilevel_problem(self, network: GaussianEnsemble) -> BilevelProblem:
        """The inner loss and the outer NLL as functions of theta and phi."""
        return training_problem(network, self, lam=self.lam, weights=self.weights)

    @torch.no_grad()
    def frozen_batch(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
    ) -> InnerData:
        """The batch and the noise of its generations: one sampled loss in all of an outer step."""
        exact = self.estimator == "exact"
        return x, y, None if exact else self.draw_noise(network(x), generator)

    def precision_diagonal(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b n"] | None:
        """U_ii(x) of the reward, the same for every network; None for a reward that has no U."""
        if not hasattr(self.reward, "precision_diagonal"):
            return None
        U: Tensor = self.reward.precision_diagonal(x)
        return U.expand(len(x), -1)

    def draw_noise(
        self, distribution: Gaussian | Categorical, generator: torch.Generator | None
    ) -> Float[Tensor, "g *e b n"]:
        """Noise of the generations: standard normal (Gaussian) or Gumbel (categorical).

        Raises:
            InputError: without a generator.
        """
        if generator is None:
            raise InputError(
                f"estimator {self.estimator!r} draws samples: pass a torch.Generator or noise"
            )
        return distribution.noise(self.samples, generator)

    def _reward_of(self, x: Tensor, y: Tensor, weight: Tensor | None) -> RewardOf:
        if weight is None:
            return lambda y_hat: _one_per_generation(self.reward(y_hat, y, x), y_hat)
        return lambda y_hat: (weight * self.reward.terms(y_hat, y, x)).sum(-1)

    def _exact(
        self,
        distribution: Gaussian | Categorical,
        x: Tensor,
        y: Tensor,
        weight: Tensor | None,
    ) -> Tensor:
        if isinstance(distribution, Categorical):
            return enumerated(self._reward_of(x, y, None), distribution)
        if not hasattr(self.reward, "expected"):
            raise InputError(
                f"estimator 'exact': {type(self.reward).__name__} has no closed-form expectation "
                "under a Gaussian; use estimator 'reparameterized'"
            )
        if weight is None:
            return self.reward.expected(distribution, y, x)
        return (weight * self.reward.expected_terms(distribution, y, x)).sum(-1)

    def _sampled(
        self, reward_of: RewardOf, distribution: Gaussian | Categorical, noise: Tensor
    ) -> Tensor:
        if self.estimator == "score_function":
            return score_function(
                reward_of,
                distribution,
                noise,
                baseline=self.baseline,
                transform=self.transform,
                clip_log_prob=self.clip_log_prob,
            )
        return reparameterized(reward_of, distribution, noise, self.transform)

    def _entropy(self, distribution: Gaussian | Categorical, weight: Tensor) -> Tensor:
        separable = getattr(self.reward, "form", "full") != "full"
        if not (separable and isinstance(distribution, DiagonalGaussian)):
            raise InputError(
                "weights of one per target dimension need a diagonal Gaussian model and a scalar "
                "or diagonal Mahalanobis reward; return one weight per datum, [B], instead"
            )
        terms = distribution.log_std + 0.5 * math.log(2 * math.pi * math.e)
        return (weight * terms).sum(-1)


def _one_per_generation(rewards: Tensor, y_hat: Tensor) -> Tensor:
    """The rewards as they are; others would be broadcast in silence."""
    expected = y_hat.shape[:-1] if y_hat.is_floating_point() else y_hat.shape
    if rewards.shape != expected:
        raise InputError(
            f"the reward returned shape {list(rewards.shape)} for generations of shape "
            f"{list(y_hat.shape)}: return one number per generation, {list(expected)}"
        )
    return rewards


def _check_options(
    estimator: Estimator,
    samples: int,
    baseline: Baseline,
    transform: Transform,
    clip_log_prob: tuple[float, float] | None,
) -> None:
    if samples < 1:
        raise InputError(f"samples = {samples}: at least 1 generation per datum is needed")
    score = estimator == "score_function"
    compares = transform == "normalize" or baseline == "leave_one_out"
    if score and samples == 1 and compares:
        raise InputError(
            "a score function with samples = 1 has no other generation to compare with; "
            "use samples of 2 or more, or baseline='none' and transform='none'"
        )
    if estimator == "exact" and transform != "none":
        raise InputError(f"transform {transform!r} acts on samples; estimator 'exact' has none")
    if not score and (transform == "normalize" or clip_log_prob is not None):
        raise InputError(
            f"transform 'normalize' and clip_log_prob belong to estimator 'score_function', "
            f"not {estimator!r}"
        )
