"""Windows of recorded steps over which open-loop predictions are evaluated."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError


@dataclass(frozen=True)
class Windows:
    """Recorded steps after some starts, in the environment's units, in random order.

    A window ends where its episode does: `recorded` says which of its steps there were, and behind
    them stands the last one again.
    """

    start: Float[Tensor, "s o"]
    actions: Float[Tensor, "s k a"]
    truth: Float[Tensor, "s k o"]
    recorded: Bool[Tensor, "s k"]

    def __len__(self) -> int:
        return len(self.start)

    @property
    def steps(self) -> int:
        """Length of the longest window."""
        return self.actions.shape[1]

    def __getitem__(self, index: Tensor | slice) -> "Windows":
        """The windows at `index`."""
        return Windows(
            self.start[index], self.actions[index], self.truth[index], self.recorded[index]
        )

    def of(self, dimensions: Int[Tensor, "d"]) -> "Windows":
        """The same windows, seen in some dimensions of the observation."""
        return replace(self, start=self.start[:, dimensions], truth=self.truth[..., dimensions])

    def first(self, steps: int) -> "Windows":
        """The same windows, `steps` long."""
        return Windows(
            self.start, self.actions[:, :steps], self.truth[:, :steps], self.recorded[:, :steps]
        )


def draw_windows(
    transitions: Transitions, k: int, generator: torch.Generator, count: int = 500
) -> Windows:
    """Up to `k` steps after `count` random rows, or after every row where there are fewer.

    Rows near the end of an episode are drawn like any other, so that the error after one step does
    not depend on how far others are followed, and what happens before a termination is included.

    Raises:
        InputError: k below 1, or no rows.
    """
    if k < 1 or len(transitions) == 0:
        raise InputError(
            f"{k} steps ahead from {len(transitions)} transitions: at least 1 of each is needed"
        )
    left = transitions.steps_left
    rows = torch.randperm(len(left), generator=generator, device=left.device)[:count]
    steps = torch.arange(min(k, int(left[rows].max())), device=left.device)
    recorded = steps < left[rows].unsqueeze(-1)
    index = rows.unsqueeze(-1) + torch.minimum(steps, left[rows].unsqueeze(-1) - 1)
    return Windows(
        transitions.observation[rows],
        transitions.action[index],
        transitions.next_observation[index],
        recorded,
    )
