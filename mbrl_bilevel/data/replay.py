"""Replay: the latest transitions on the device, as policies learn from them."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.wording import counted


class Batch(NamedTuple):
    """Transitions without their order, in the environment's own units.

    `terminated` is 1 where the next state has no future, 0 elsewhere: a truncated episode's does.
    Between them it says what share of its future does not count (`agents/multi_step.py`).
    """

    observation: Float[Tensor, "b o"]
    action: Float[Tensor, "b a"]
    reward: Float[Tensor, "b"]
    next_observation: Float[Tensor, "b o"]
    terminated: Float[Tensor, "b"]


class Replay:
    """A ring of `capacity` transitions; the newest push out the oldest.

    One row of one tensor holds a whole transition, so that a batch is gathered at once.

    Raises:
        InputError: a capacity below 1.
    """

    def __init__(
        self, capacity: int, obs_dim: int, act_dim: int, device: torch.device | str = "cpu"
    ) -> None:
        if capacity < 1:
            raise InputError(f"a replay of {counted(capacity, 'transition')}: choose at least 1")
        self.obs_dim, self.act_dim = obs_dim, act_dim
        self.rows = torch.zeros(capacity, 2 * obs_dim + act_dim + 2, device=device)
        self.added = 0
        """Transitions since construction, those included that were pushed out."""

    @classmethod
    def of(cls, data: Transitions, device: torch.device | str = "cpu") -> "Replay":
        """A replay that holds all of these transitions."""
        replay = cls(len(data), data.observation.shape[1], data.action.shape[1], device)
        ends = data.terminated.to(data.reward.dtype)
        replay.add(Batch(data.observation, data.action, data.reward, data.next_observation, ends))
        return replay

    def __len__(self) -> int:
        return min(self.added, len(self.rows))

    def add(self, batch: Batch) -> None:
        """Takes in transitions, oldest first."""
        capacity = len(self.rows)
        rows = torch.cat([p if p.ndim == 2 else p.unsqueeze(-1) for p in batch], -1)
        kept = rows[-capacity:].to(self.rows)
        first = self.added + len(rows) - len(kept)
        place = (first + torch.arange(len(kept), device=self.rows.device)) % capacity
        self.rows[place] = kept
        self.added += len(rows)

    def sample(self, count: int, generator: torch.Generator, *, newest: int | None = None) -> Batch:
        """`count` transitions drawn uniformly with replacement; of the `newest` so many only."""
        among = len(self) if newest is None else min(newest, len(self))
        drawn = torch.randint(among, (count,), generator=generator, device=self.rows.device)
        return self.batch((self.added - among + drawn) % len(self.rows))

    def batch(self, index: Int[Tensor, "b"]) -> Batch:
        """The transitions in places `index` of the ring."""
        o, a = self.obs_dim, self.act_dim
        obs, act, reward, after, terminated = self.rows[index].split([o, a, 1, o, 1], -1)
        return Batch(obs, act, reward.squeeze(-1), after, terminated.squeeze(-1))

    def in_order(self) -> Batch:
        """Every transition that is held, oldest first."""
        start = self.added - len(self)
        index = (start + torch.arange(len(self), device=self.rows.device)) % len(self.rows)
        return self.batch(index)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs: the filled part of the ring, and how many were added."""
        return {"rows": self.rows[: len(self)], "added": torch.tensor(self.added)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continues from `state`, which must be that of a replay of the same sizes."""
        self.added = int(state["added"])
        self.rows[: len(self)] = state["rows"]
