"""What settings of every objective have in common; no import of torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mbrl_bilevel.models.settings import NetworkKind
from mbrl_bilevel.ranges import check_ranges

if TYPE_CHECKING:
    import torch

    from mbrl_bilevel.data.transitions import Transitions
    from mbrl_bilevel.models.dynamics import DynamicsModel
    from mbrl_bilevel.objectives.visited import Policy
    from mbrl_bilevel.training.objective import Objective


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """Settings of an objective, from which `objectives.build.build` makes it; one subclass each.

    `kind` is that of the network which the objective trains.

    Raises:
        InputError: a value out of range, or values that exclude one another.
    """

    kind: ClassVar[NetworkKind] = "gaussian"

    def __post_init__(self) -> None:
        check_ranges(self)

    def build(
        self,
        model: "DynamicsModel",
        train: "Transitions",
        held_out: "Transitions",
        *,
        steps: int,
        generator: "torch.Generator",
        policy: "Policy | None" = None,
    ) -> "Objective":
        """The objective of a fit; see `objectives.build.build`."""
        from mbrl_bilevel.objectives.build import build  # only now: it imports torch

        return build(self, model, train, held_out, steps=steps, generator=generator, policy=policy)
