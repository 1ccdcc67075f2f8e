"""Transitions as tensors, and their split by episode."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl_bilevel.data.episode_parts import part_of_rows, steps_left, with_copies
from mbrl_bilevel.errors import InputError


@dataclass(frozen=True)
class Transitions:
    """Every transition of a data set, in the environment's own units, in the order of time.

    `episode` numbers the episodes 0, 1, ...; a transition's neighbours in time stand beside it.
    Truncation (a time limit) is kept apart from termination, because values bootstrap through it.
    `recorded_change` is the change of the observation as it was before observations were rounded;
    None where the difference of the rounded ones is as good.
    """

    observation: Float[Tensor, "b o"]
    action: Float[Tensor, "b a"]
    reward: Float[Tensor, "b"]
    next_observation: Float[Tensor, "b o"]
    terminated: Bool[Tensor, "b"]
    truncated: Bool[Tensor, "b"]
    episode: Int[Tensor, "b"]
    recorded_change: Float[Tensor, "b o"] | None = None

    def __len__(self) -> int:
        return self.observation.shape[0]

    def __getitem__(self, index: Tensor | slice) -> "Transitions":
        """The transitions at `index` (a slice, integers or a mask), in that order."""
        return self._each(lambda column: column[index])

    def to(self, device: torch.device | str) -> "Transitions":
        """The same transitions on another device."""
        return self._each(lambda column: column.to(device))

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Transitions":
        columns: dict[str, Any] = {}
        for f in fields(self):
            column = getattr(self, f.name)
            columns[f.name] = None if column is None else function(column)
        return Transitions(**columns)

    @property
    def change(self) -> Float[Tensor, "b o"]:
        """How far each transition moves the observation."""
        if self.recorded_change is not None:
            return self.recorded_change
        return self.next_observation - self.observation

    @property
    def episodes(self) -> int:
        """How many different episodes these transitions come from."""
        return int(self.episode.unique().numel())

    @property
    def steps_left(self) -> Int[Tensor, "b"]:
        """How many recorded steps each row begins, itself among them, until its episode ends."""
        return steps_left(self.episode)

    @property
    def group(self) -> Int[Tensor, "b"]:
        """A number for each row's episode, the same for episodes that are copies of each other."""
        columns = [getattr(self, f.name) for f in fields(self) if f.name != "episode"]
        return with_copies(self.episode, [column for column in columns if column is not None])


def split_by_episode(
    transitions: Transitions,
    fractions: Sequence[float],
    generator: torch.Generator,
    *,
    remedy: str = "collect more episodes",
) -> tuple[Transitions, ...]:
    """Parts of about `fractions` of the transitions each; no episode stands on two sides.

    Every transition lands in exactly one part, in its old order, and no part is empty. Episodes are
    dealt in random order, each to the part that lacks most, so that a part misses its share by no
    more than about one episode; copies of an episode go to the same part, with a UserWarning. Where
    whole episodes would leave a part with less than half of its share (a single episode, two, or a
    long one among short ones), the long ones are cut into blocks of time, with a UserWarning. There
    is no gap between blocks: no row is in two parts, but those at a cut are alike. `remedy` ends
    what is said of data that are too few.

    Raises:
        InputError: fractions that are not positive or do not sum to 1, fewer transitions than
            parts, or fewer episodes than parts of which none is long enough to be cut.
    """
    if not all(fraction > 0 for fraction in fractions) or not abs(sum(fractions) - 1) < 1e-6:
        raise InputError(f"fractions {list(fractions)} must be positive and sum to 1")
    if len(fractions) == 1:
        return (transitions,)
    part = part_of_rows(transitions.episode, transitions.group, fractions, generator, remedy)
    return tuple(transitions[part == k] for k in range(len(fractions)))
