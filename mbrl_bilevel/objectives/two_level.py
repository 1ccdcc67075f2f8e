"""Two levels: an inner loss trains the network, and what it depends on is learned on other rows."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.nested_state import State, load_moments, moments, nest, part
from mbrl_bilevel.objectives.inner_problem import InnerProblem, learned_parameters
from mbrl_bilevel.objectives.outer_data import OuterData
from mbrl_bilevel.objectives.outer_steps import ClosedForm, OuterStep
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.objective import NothingLearned

CHECKED = 1024  # rows at which an evaluation looks at U(x)


class TwoLevel(NothingLearned):
    """Moves theta, the network, by an inner loss, and phi, what that loss depends on, by an outer.

    The fit loop moves theta by the inner loss, as for every objective; `after_step` moves phi, the
    parameters of `inner` (of a reward and its weights, or of a noise), once every `every` steps by
    Adam on the direction of `outer_step`. phi rests at first for the step's warm-up.

    Whether this solves the bilevel problem (theory T1) is up to the step: `HypergradientStep` and
    `SobaStep` differentiate through the inner solution, `ClosedForm` holds it still.

    Args:
        name: of the objective, for the progress bar.
        outer: the rows that the outer level learns on, and those left to the inner level: the fit
            loop shows a member no row of its outer data.
        learning_rate: Adam's at the start of its cosine schedule; default: the step's own.
        steps: of the fit that this objective is made for.

    Raises:
        InputError: nothing to learn in `inner`, `every` below 1, a learning rate that is not
            positive.
        TrainingDiverged: at an evaluation, a learned U(x) that is not finite and positive.
    """

    selects_by: Literal["nll", "mse"]

    def __init__(
        self,
        inner: InnerProblem,
        outer: OuterData,
        outer_step: OuterStep | None = None,
        *,
        name: str = "two levels",
        every: int = 3,
        learning_rate: float | None = None,
        steps: int = 20_000,
    ) -> None:
        phi = list(learned_parameters(inner).values())
        if not phi:
            raise InputError("the outer level has no parameters to learn; use pg")
        if every < 1:
            raise InputError(f"an outer step every {every} inner steps: choose at least 1")
        step = ClosedForm() if outer_step is None else outer_step
        rate = step.learning_rate if learning_rate is None else learning_rate
        if not rate > 0:
            raise InputError(f"an outer learning rate of {rate}: choose one above 0")
        self.name = name
        self.inner, self.outer, self.outer_step, self.every = inner, outer, step, every
        self.frozen = False
        self.selects_by = inner.selects_by
        self.warm_up = int(step.warm_up * steps)
        # The second moment must forget the large first gradients, hence betas of 0.99.
        self.optimizer = torch.optim.Adam(phi, lr=rate, betas=step.betas)
        # To a hundredth, as the inner rate: while phi moves, theta is never at its optimum.
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, max(1, (steps - self.warm_up) // every), 0.01 * rate
        )

    @property
    def rows(self) -> Int[Tensor, "e n"] | None:
        # On rows that theta has fitted, residuals are too small, and U(x) grows without bound.
        return self.outer.inner_rows

    def __call__(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        return self.inner(network, x, y, generator)

    def calibrate(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"], y: Float[Tensor, "b n"]
    ) -> None:
        self.inner.calibrate(network, x, y)
        # Here, not in after_step: both checks read numbers, which waits for the device.
        self._check_reward(network, x[:CHECKED])
        self.outer_step.check()

    def warm_start(self, network: GaussianEnsemble) -> None:
        self.inner.warm_start(network)

    def freeze(self) -> None:
        """The reward and the weights stay as they are from now on."""
        self.frozen = True

    def after_step(
        self,
        network: GaussianEnsemble,
        batch: tuple[Float[Tensor, "e b d"], Float[Tensor, "e b n"]],
        step: int,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        if self.frozen or step <= self.warm_up or step % self.every:
            return {}
        outer_batch = next(self.outer.batches)
        grad, metrics = self.outer_step(network, self.inner, batch, outer_batch, generator)
        lost = ~metrics["hypergradient_norm"].isfinite()  # such a step is left out, without a sync
        for name, p in self.inner.named_parameters():
            found = grad.get(name)
            p.grad = None if found is None else found.masked_fill(lost, 0.0)
        self.optimizer.step()
        self.schedule.step()
        return metrics | self.outer.batches.metrics() | {"skipped_steps": lost.long()}

    @torch.no_grad()
    def precision_diagonal(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b n"] | None:
        """U_ii(x) of the learned reward, to look at; None for a reward that has no U."""
        return self.inner.precision_diagonal(network, x)

    def _check_reward(self, network: GaussianEnsemble, x: Float[Tensor, "b d"]) -> None:
        U = self.precision_diagonal(network, x)
        if U is not None and not bool((U.isfinite() & (U > 0)).all()):
            raise TrainingDiverged(
                f"the learned reward diverged: U(x) runs from {float(U.amin()):.3g} to "
                f"{float(U.amax()):.3g} and is not finite and positive everywhere; lower the outer "
                "learning rate, or learn the reward on data held out from the model"
            )

    def scale_learning_rate(self, factor: float) -> None:
        # All three: the schedule computes each rate from the last one, and falls to eta_min.
        self.optimizer.param_groups[0]["lr"] *= factor
        self.schedule.base_lrs = [factor * lr for lr in self.schedule.base_lrs]
        self.schedule.eta_min *= factor

    def state(self) -> State:
        rates = [self.optimizer.param_groups[0]["lr"], self.schedule.eta_min]
        parts = {
            "phi": {k: p.detach() for k, p in self.inner.named_parameters()},
            "batches": self.outer.batches.state(),
            "adam": moments(self.optimizer),
            "outer_step": self.outer_step.state(),
        }
        return nest(parts) | {
            "outer_steps": torch.tensor(self.schedule.last_epoch),
            "learning_rates": torch.tensor(rates, dtype=torch.float64),
        }

    @torch.no_grad()
    def load_state(self, state: State) -> None:
        phi = part(state, "phi")
        for name, p in self.inner.named_parameters():
            p.copy_(phi[name])
        # A generator's state lives on the CPU, whatever its device.
        batches = {k: v.cpu() for k, v in part(state, "batches").items()}
        self.outer.batches.load_state(batches)
        load_moments(self.optimizer, part(state, "adam"))
        self.schedule.last_epoch = int(state["outer_steps"])
        # The rate too: the schedule computes it from the last one, not from the count of steps.
        rate, self.schedule.eta_min = state["learning_rates"].tolist()
        self.schedule._last_lr = [rate]
        self.optimizer.param_groups[0]["lr"] = rate
        self.outer_step.load_state(part(state, "outer_step"))
