"""A factor of the predicted deviations, fitted to held-out data after the training."""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel

LEAST_ROWS = 100  # tell a deviation to 7 %, 1 / sqrt(2 rows)
MOST_ROWS = 20_000  # that are looked at: they tell it to half a per cent
ITERATIONS = 100  # of LBFGS, at most: a handful is enough


@torch.no_grad()
def recalibrate(model: DynamicsModel, held_out: Transitions) -> Float[Tensor, "k"]:
    """Multiplies the deviations by one factor per target, of all elites; returns the k factors.

    They minimise the NLL of y under the mixture of the elites' N(mu, diag(c s)^2), with the s that
    were learned, so that a second time changes nothing. For one elite c_i^2 is the mean of
    ((y_i - mu_i) / s_i)^2; among several, what they disagree by needs no noise. Sampling and
    planning use the factors, `model.save` keeps them, a new fit drops them. Correlations of a full
    covariance are left out of this fit.

    Rows should be such that no gradient has seen. Source: deviation scaling, Levi et al. 2022; of
    classifiers, temperature scaling, Guo et al. 2017.

    Raises:
        InputError: fewer than LEAST_ROWS rows, or errors that are 0 or not finite.
    """
    if len(held_out.reward) < LEAST_ROWS:
        raise InputError(
            f"recalibration by {len(held_out.reward)} held-out rows: it takes at least "
            f"{LEAST_ROWS}; collect more episodes"
        )
    x, y = (part[:: -(-len(part) // MOST_ROWS)] for part in model.encode(held_out))
    gaussian = model.elite_network()(x)
    log_std = gaussian.std.log() - model.network.recalibration[model.informative]
    error = (y - gaussian.mean).double()
    log_factor = _least(error, log_std.double())
    if not bool(log_factor.isfinite().all()):
        raise InputError(
            "recalibration: standardised errors of held-out rows are 0 or not finite; train the "
            "model again"
        )
    factor = log_factor.exp().to(y)
    model.network.recalibrate(factor)
    return factor


def _least(error: Float[Tensor, "e b n"], log_std: Float[Tensor, "e b n"]) -> Float[Tensor, "n"]:
    """log c of least NLL, from the closed form of single elites on."""
    single = (error / log_std.exp()).square().mean((0, 1)).sqrt().log()
    if not bool(single.isfinite().all()):
        return single
    found = single.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [found], max_iter=ITERATIONS, tolerance_grad=1e-8, line_search_fn="strong_wolfe"
    )

    def nll() -> Tensor:
        solver.zero_grad()
        scale = log_std + found
        each = (-0.5 * (error / scale.exp()).square() - scale).sum(-1)
        loss = -each.logsumexp(0).mean()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(nll)
    return found.detach()


def stored_factors(model: DynamicsModel) -> list[float] | None:
    """Factors of the deviations of the k targets; None where all are 1, as after a training."""
    stored = model.network.recalibration[model.informative]
    return stored.exp().tolist() if bool(stored.any()) else None
