"""Held-out metrics while training, and the best state that each member has had by them."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.models.distributions import DiagonalGaussian
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.mixture import MixtureEnsemble
from mbrl_bilevel.nested_state import State, nest, part

WORST = 5.0  # nats of one dimension: beyond it a likelihood selects no more
CHUNK = 16_384  # rows per forward pass: bounds the memory of an evaluation


@torch.no_grad()
def held_out_metrics(
    network: GaussianEnsemble,
    x: Float[Tensor, "b d"],
    y: Float[Tensor, "b n"],
    *,
    by_row: Literal["nll", "mse"] | None = None,
) -> dict[str, Tensor]:
    """Metrics per member in standardised units.

    `nll` [E], nats per dimension; `mse` [E], averaged over dimensions; `squared_error` [E, n];
    `bounded_nll` [E], the nll without what a dimension's own exceeds WORST by, so that one whose
    likelihood explodes does not decide which members and which steps are best. `row_score` [E, b],
    on request: what each row adds to the mean that is `bounded_nll` or `mse`.
    """
    log_prob = x.new_zeros(network.members)
    dimension_nll = x.new_zeros(network.members, y.shape[-1])
    squared_error = x.new_zeros(network.members, y.shape[-1])
    rows: list[Tensor] = []  # of each dimension's own score
    correlations: list[Tensor] = []
    for x_chunk, y_chunk in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        gaussian = network(x_chunk)
        own = -DiagonalGaussian(gaussian.mean, gaussian.std.log()).log_density(y_chunk)
        square = (gaussian.mean - y_chunk).square()
        joint = gaussian.log_prob(y_chunk)
        log_prob += joint.sum(-1)
        dimension_nll += own.sum(-2)
        squared_error += square.sum(-2)
        if by_row is not None:
            rows.append(own if by_row == "nll" else square)
            correlations.append(-joint / y.shape[-1] - own.mean(-1))
    squared_error /= len(x)
    nll = -log_prob / (len(x) * y.shape[-1])
    dimension_nll /= len(x)
    bounded_nll = dimension_nll.clamp(max=WORST).mean(-1)
    full = network.covariance == "full"
    if full:
        bounded_nll += nll - dimension_nll.mean(-1)  # what correlations are worth
    found = {
        "nll": nll,
        "bounded_nll": bounded_nll,
        "mse": squared_error.mean(-1),
        "squared_error": squared_error,
    }
    if by_row is None:
        return found
    score = torch.cat(rows, 1)
    if by_row == "nll":
        score = torch.where((dimension_nll > WORST).unsqueeze(1), WORST, score)
    score = score.mean(-1)
    return found | {
        "row_score": score + torch.cat(correlations, 1) if full and by_row == "nll" else score
    }


@torch.no_grad()
def standardized_square(
    network: GaussianEnsemble, x: Float[Tensor, "b d"], y: Float[Tensor, "b n"]
) -> Float[Tensor, "e n"]:
    """Mean square of (y - mean) / std, 1 where the deviations are those of the residuals."""
    total = x.new_zeros(network.members, y.shape[-1])
    for x_chunk, y_chunk in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        gaussian = network(x_chunk)
        total += ((y_chunk - gaussian.mean) / gaussian.std).square().sum(-2)
    return total / len(x)


class BestMembers:
    """Keeps, for each member apart, the parameters with the lowest held-out score so far.

    `stale` counts the evaluations since any member last improved by more than `tolerance`.
    """

    def __init__(
        self, network: GaussianEnsemble | MixtureEnsemble, tolerance: float = 1e-3
    ) -> None:
        self.parameters = {k: v.detach().clone() for k, v in network.named_parameters()}
        first = next(iter(self.parameters.values()))
        self.score = torch.full((network.members,), torch.inf, device=first.device)
        self.reference = self.score.clone()
        self.tolerance = tolerance
        self.stale = 0

    @torch.no_grad()
    def update(
        self, network: GaussianEnsemble | MixtureEnsemble, score: Float[Tensor, "e"]
    ) -> None:
        better = score < self.score  # False for NaN: a lost member keeps its best
        self.score = torch.where(better, score, self.score)
        for name, value in network.named_parameters():
            self.parameters[name] = torch.where(
                better.view(-1, *[1] * (value.ndim - 1)), value, self.parameters[name]
            )
        progress = score < self.reference - self.tolerance
        self.reference = torch.where(progress, score, self.reference)
        self.stale = 0 if bool(progress.any()) else self.stale + 1

    @torch.no_grad()
    def restore(self, network: GaussianEnsemble | MixtureEnsemble) -> None:
        """Gives every member its best parameters back."""
        for name, value in network.named_parameters():
            value.copy_(self.parameters[name])

    def state(self) -> State:
        return nest({"parameters": self.parameters}) | {
            "score": self.score,
            "reference": self.reference,
            "stale": torch.tensor(self.stale),
        }

    def load_state(self, state: State) -> None:
        self.score, self.reference = state["score"], state["reference"]
        self.stale = int(state["stale"])
        saved = part(state, "parameters")
        self.parameters = {name: saved[name] for name in self.parameters}
