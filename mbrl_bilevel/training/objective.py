"""What a fit asks of an objective, and of settings from which one is built."""

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.gaussian import GaussianEnsemble


@runtime_checkable
class Objective(Protocol):
    """Gives the loss of one gradient step; `selects_by` names the held-out metric that counts.

    The training loss is never a measure of progress (a policy-gradient surrogate is none): early
    stopping, plateau schedule and elites all go by the held-out metric.
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
        """The loss per member (mean over the batch, sum over dimensions) and metrics to log."""

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

    def warm_start(self, network: GaussianEnsemble) -> None:
        """Takes over from a network that was fitted before what the objective itself learns."""


@runtime_checkable
class ObjectiveSettings(Protocol):
    """What an objective is built from, once the data and the model are there."""

    def build(
        self,
        model: DynamicsModel,
        train: Transitions,
        held_out: Transitions,
        *,
        steps: int,
        generator: torch.Generator,
    ) -> Objective:
        """The objective of a fit of `steps` steps; the model's standardisers are fitted."""


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

    def warm_start(self, network: GaussianEnsemble) -> None:
        """Nothing is taken over."""
