"""Numbers that are not finite: steps skipped and counted, and how a lost training ends."""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.errors import TrainingDiverged as TrainingDiverged
from mbrl_bilevel.models.gaussian import GaussianEnsemble

EXPLODED = 1e6  # held-out squared errors above so many times that of predicting 0
RUN = 10  # steps of one member, one after the other, that were left out: it is lost
OUTLIER = 100.0  # standard deviations from the mean: no data that a model could learn from

Cause = Callable[[], str]


def likely_cause(learning_rate: float, y: Float[Tensor, "b n"]) -> str:
    """Why a training may have diverged: outliers among its standardised targets, or its pace."""
    largest = float(y.abs().max())
    if largest > OUTLIER:
        return (
            f"the likely cause is outliers in the data: a target lies {largest:.3g} standard "
            "deviations from its mean; mend or remove it"
        )
    return (
        f"the likely cause is a learning rate of {learning_rate:.2g}, too high for this model; "
        "lower it, or the largest gradient norm"
    )


class SkippedSteps:
    """Counts steps whose loss or gradient was not finite, by member and on the device.

    `total` since the start, `streak` up to now, `longest` streak since the last check.
    """

    def __init__(self, members: int, device: torch.device) -> None:
        self.total, self.streak, self.longest = torch.zeros(
            3, members, dtype=torch.long, device=device
        ).unbind()

    @torch.no_grad()
    def skip(
        self,
        parameters: Sequence[nn.Parameter],
        loss: Float[Tensor, "e"],
        norm: Float[Tensor, "e"],
    ) -> None:
        """Sets the whole gradient of members to zero where loss or gradient norm is not finite.

        Such a member goes on by its momentum alone, and no other member notices.
        """
        lost = ~(loss.abs() + norm < torch.inf)
        self.total += lost
        self.streak += 1
        self.streak *= lost
        torch.maximum(self.longest, self.streak, out=self.longest)
        if lost.device.type == "cpu" and not bool(lost.any()):
            return  # elsewhere looking would wait for the device
        for p in parameters:
            if p.grad is not None:
                p.grad.masked_fill_(lost.view(-1, *[1] * (p.ndim - 1)), 0.0)

    def check(self, step: int, cause: Cause) -> None:
        """Waits for the device.

        Raises:
            TrainingDiverged: a member had RUN such steps one after the other.
        """
        streak, longest = self.streak.tolist(), self.longest.tolist()
        self.longest.copy_(self.streak)
        lost = [e for e, length in enumerate(longest) if length >= RUN]
        if not lost:
            return
        began = [f"from step {step - streak[e] + 1} on" for e in lost if streak[e] == longest[e]]
        when = began[0] if began else f"in {max(longest)} steps running"
        raise TrainingDiverged(
            f"training diverged by step {step}: the loss or the gradient of member "
            f"{', '.join(map(str, lost))} was not finite {when}; {cause()}"
        )

    def state(self) -> dict[str, Tensor]:
        return {"total": self.total, "streak": self.streak, "longest": self.longest}

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, value in self.state().items():
            value.copy_(state[name])


def check_finite(
    step: int, network: GaussianEnsemble, others: Iterable[Tensor], cause: Cause
) -> None:
    """Waits once for the device.

    Raises:
        TrainingDiverged: parameters, or `others` (optimiser, objective), that are not finite.
    """
    finite = [p.detach().flatten(1).isfinite().all(1) for p in network.parameters()]
    members = ~torch.stack(finite).all(0)
    rest = [~t.isfinite().all().to(members.device) for t in others if t.is_floating_point()]
    if not bool(torch.stack([members.any(), *rest]).any()):
        return
    lost = torch.nonzero(members).flatten().tolist()
    what = (
        f"parameters of member {', '.join(map(str, lost))} are"
        if lost
        else "the state of the optimiser or of the objective is"
    )
    raise TrainingDiverged(f"training diverged by step {step}: {what} not finite; {cause()}")


def check_metrics(
    step: int,
    y: Float[Tensor, "b n"],
    nll: Float[Tensor, "e"],
    mse: Float[Tensor, "e"],
    cause: Cause,
) -> None:
    """Judges held-out metrics of the members, targets y.

    Raises:
        TrainingDiverged: a metric that is not finite, or an exploded squared error.
    """
    bound = EXPLODED * y.square().mean().clamp_min(1.0)
    lost = torch.nonzero(~(nll.isfinite() & (mse <= bound))).flatten().tolist()
    if lost:
        worst = mse[lost].max().item()
        raise TrainingDiverged(
            f"training diverged by step {step}: the held-out error of member "
            f"{', '.join(map(str, lost))} is without bound (mse {worst:.3g}); {cause()}"
        )
