"""What objectives of two levels and their outer steps ask of an inner level."""

from collections.abc import Iterator
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.models.gaussian import GaussianEnsemble


@runtime_checkable
class InnerProblem(Protocol):
    """A loss that trains a network; its own parameters are phi, which the outer level learns.

    The closed form asks for `outer_loss` alone, outer steps that differentiate through the
    network's optimum for `bilevel_problem` and `frozen_batch`.
    """

    selects_by: Literal["nll", "mse"]

    def __call__(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
        /,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def warm_start(self, network: GaussianEnsemble) -> None: ...

    def calibrate(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"], y: Float[Tensor, "b n"]
    ) -> None: ...

    def precision_diagonal(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b n"] | None:
        """U_ii(x) of the learned reward, to look at; None for a reward that has no U."""

    def outer_loss(
        self, network: GaussianEnsemble, x: Float[Tensor, "e m d"], y: Float[Tensor, "e m n"], /
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss of the inner optimum in closed form (theory T6), and the outer NLL in it."""

    def bilevel_problem(self, network: GaussianEnsemble) -> BilevelProblem:
        """Inner and outer loss as functions of theta, the network's parameters, and phi."""

    def frozen_batch(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
    ) -> Any:
        """The inner data of `bilevel_problem`: the batch, with all noise in it drawn."""


def learned_parameters(inner: InnerProblem) -> Params:
    """phi: the parameters that the outer level may move."""
    return {k: p for k, p in inner.named_parameters() if p.requires_grad}
