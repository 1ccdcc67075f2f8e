"""How a training that has gone astray ends: one sentence, and nothing spoilt on disk."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.models.gaussian import GaussianEnsemble

EXPLODED = 1e6  # held-out squared errors above so many times that of predicting 0
REMEDY = "lower the learning rate or the largest gradient norm, or look for outliers in the data"


class TrainingDiverged(RuntimeError):
    """Training cannot go on: a number that is not finite, or an error without bound.

    The command line prints the sentence without a traceback and exits with code 1.
    """


def check_finite(step: int, network: GaussianEnsemble, others: Iterable[Tensor]) -> None:
    """Waits once for the device.

    Raises:
        TrainingDiverged: parameters, or `others` (optimiser, objective), that are not finite.
    """
    parameters = [p.detach().flatten(1) for p in network.parameters()]
    members = torch.stack([p.isfinite().all(1) for p in parameters]).all(0)
    rest = [t.isfinite().all().to(members.device) for t in others if t.is_floating_point()]
    if bool(torch.stack([members.all(), *rest]).all()):
        return
    lost = torch.nonzero(~members).flatten().tolist()
    what = (
        f"parameters of member {', '.join(map(str, lost))} are"
        if lost
        else "the state of the optimiser or of the objective is"
    )
    raise TrainingDiverged(f"training diverged by step {step}: {what} not finite; {REMEDY}")


def check_figures(
    step: int,
    y: Float[Tensor, "b n"],
    nll: Float[Tensor, "e"],
    mse: Float[Tensor, "e"],
) -> None:
    """Judges held-out figures of the members, targets y.

    Raises:
        TrainingDiverged: a figure that is not finite, or an exploded squared error.
    """
    bound = EXPLODED * y.square().mean().clamp_min(1.0)
    lost = torch.nonzero(~(nll.isfinite() & (mse <= bound))).flatten().tolist()
    if lost:
        worst = mse[lost].max().item()
        raise TrainingDiverged(
            f"training diverged by step {step}: the held-out error of member "
            f"{', '.join(map(str, lost))} is without bound (mse {worst:.3g}); {REMEDY}"
        )
