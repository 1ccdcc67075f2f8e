"""What the fit loop asks of an objective."""

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.models.gaussian import GaussianEnsemble


@runtime_checkable
class Objective(Protocol):
    """Gives the loss of one gradient step; `selects_by` names the held-out figure that counts.

    The training loss is never a measure of progress (a policy-gradient surrogate is none): early
    stopping, plateau schedule and elites all go by the held-out figure.
    """

    name: str
    selects_by: Literal["nll", "mse"]

    @property
    def rows(self) -> Int[Tensor, "e n"] | None:
        """The training rows that each member may see; None where all may see all."""

    def __call__(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        """The loss per member (mean over the batch, sum over dimensions) and figures to log."""

    def calibrate(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"], y: Float[Tensor, "b n"]
    ) -> None:
        """Called with held-out data before every evaluation, for what the loss leaves open."""

    def after_step(
        self,
        network: GaussianEnsemble,
        batch: tuple[Float[Tensor, "e b d"], Float[Tensor, "e b n"]],
        step: int,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Called after every gradient step, with its batch, to move what the objective learns."""

    def scale_learning_rate(self, factor: float) -> None:
        """Multiplies the learning rate of what the objective itself learns."""

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint must hold of the objective."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continues from `state()`."""


class NothingLearned:
    """The part of `Objective` for objectives that learn nothing themselves."""

    @property
    def rows(self) -> Int[Tensor, "e n"] | None:
        """All rows are for all members."""
        return None

    def calibrate(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"], y: Float[Tensor, "b n"]
    ) -> None:
        """Nothing is open: the loss decides all of the prediction."""

    def after_step(
        self,
        network: GaussianEnsemble,
        batch: tuple[Float[Tensor, "e b d"], Float[Tensor, "e b n"]],
        step: int,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Nothing moves."""
        return {}

    def scale_learning_rate(self, factor: float) -> None:
        """Nothing moves."""

    def state(self) -> dict[str, Tensor]:
        """Nothing is to be kept."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Nothing was kept."""
