"""Which rows the outer level learns a reward on, and which the inner level leaves to it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.training.batches import Batches, cross_fit
from mbrl_bilevel.training.samples import Samples


class OuterBatches:
    """Batches of the outer data: rows [E, M] that member e was not fitted to, and no other.

    The same rows for every member are plain held-out data. Rows that differ are cross-fitting:
    every transition serves the inner level of some members and the outer level of the others.
    """

    def __init__(
        self,
        x: Float[Tensor, "b d"],
        y: Float[Tensor, "b n"],
        rows: Int[Tensor, "e m"],
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self.x, self.y = x, y
        # Shared rows are shuffled once for all members; the comparison waits for the device, once.
        shared = bool((rows == rows[:1]).all())
        self.batches = Batches(rows, batch_size, generator, shared=shared)

    def __next__(self) -> tuple[Float[Tensor, "e b d"], Float[Tensor, "e b n"]]:
        rows = next(self.batches)
        return self.x[rows], self.y[rows]


@dataclass(frozen=True)
class OuterData:
    """Batches for the outer level, and the training rows [E, N] left to each member's inner level.

    `inner_rows` is None where every member learns from all training rows.
    """

    batches: OuterBatches
    inner_rows: Int[Tensor, "e n"] | None = None


def cross_fitted(
    train: Transitions,
    samples: Samples,
    members: int,
    *,
    folds: int,
    batch_size: int,
    generator: torch.Generator,
) -> OuterData:
    """Each member leaves out one fold of episodes, which is its outer data.

    `samples` are the encoded rows of `train`, in their order; there are fewer folds where there are
    fewer episodes.

    Raises:
        InputError: fewer than two members, or fewer episodes than members.
    """
    order = _order(generator)
    # More folds than members leave each member more rows to learn from.
    folds = max(members, min(folds, train.episodes))
    inner, left_out = cross_fit(train.episode, members, generator, folds, train.group)
    return OuterData(OuterBatches(*samples, left_out, batch_size, order), inner)


def same_for_all(
    samples: Samples, members: int, *, batch_size: int, generator: torch.Generator
) -> OuterData:
    """All rows of `samples` are the outer data of every member."""
    order = _order(generator)
    rows = torch.arange(len(samples.x), device=samples.x.device).expand(members, -1)
    return OuterData(OuterBatches(*samples, rows, batch_size, order))


def _order(generator: torch.Generator) -> torch.Generator:
    """A generator of the batches' own, seeded by the one that is given."""
    # Batches of the outer level must not shift those of the inner one.
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator(generator.device).manual_seed(seed)
