"""What the outer level learns on, and which training rows the inner level leaves to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.data.episode_parts import steps_left
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.nested_state import State
from mbrl_bilevel.training.batches import Batches, cross_fit, fill


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

    def metrics(self) -> State:
        return {}

    def state(self) -> State:
        return self.batches.state()

    def load_state(self, state: State) -> None:
        self.batches.load_state(state)


class WindowBatch(NamedTuple):
    """Recorded steps of each member, as its network sees them: in standard deviations.

    `actions` are clamped as inputs are. `rewards` are None where the model learns none that varies.
    `lowest` and `highest` bound the imagined observations (`DynamicsModel.reachable`).
    """

    start: Float[Tensor, "e m o"]
    actions: Float[Tensor, "e m k a"]
    observations: Float[Tensor, "e m k o"]
    rewards: Float[Tensor, "e m k"] | None
    lowest: Float[Tensor, "e m o"]
    highest: Float[Tensor, "e m o"]


class OuterWindows:
    """Batches of windows of `horizon` recorded steps, all among the `rows` [E, M] of each member.

    Every row that begins so many steps is a start. Steps follow one another where they stand in one
    episode and the observation goes on from the one before.

    Raises:
        InputError: a member without a window.
    """

    def __init__(
        self,
        model: DynamicsModel,
        transitions: Transitions,
        rows: Int[Tensor, "e m"],
        horizon: int,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self.model, self.transitions, self.horizon = model, transitions, horizon
        self.with_reward = model.learn_reward and model.obs_dim in model.informative.tolist()
        lengths = [steps_left(_runs(transitions, r))[r] for r in rows]
        longest = min(int(length.max()) for length in lengths)
        if longest < horizon:
            raise InputError(
                f"--outer-horizon {horizon}: the episodes that a member leaves out have no run of "
                f"so many recorded steps, the longest has {longest}; choose at most {longest}"
            )
        starts = fill([r[n >= horizon] for r, n in zip(rows, lengths, strict=True)])
        # Shared starts are shuffled once for all members; the comparison waits for the device.
        shared = bool((starts == starts[:1]).all())
        self.batches = Batches(starts, batch_size, generator, shared=shared)

    @torch.no_grad()
    def __next__(self) -> WindowBatch:
        model, data, size = self.model, self.transitions, self.model.obs_dim
        rows = next(self.batches)
        steps = rows.unsqueeze(-1) + torch.arange(self.horizon, device=rows.device)
        obs, after, inputs = data.observation, data.next_observation, model.input_standardizer
        mean, std = inputs.mean[:size], inputs.std[:size]
        lowest, highest = model.reachable(model.cast(obs[rows]), self.horizon)
        rewards = None
        if self.with_reward:
            targets = model.target_standardizer
            rewards = model.cast((data.reward[steps] - targets.mean[size]) / targets.std[size])
        return WindowBatch(
            model.cast((obs[rows] - mean) / std),
            model.inputs(obs[steps], data.action[steps])[..., size:],
            model.cast((after[steps] - mean) / std),
            rewards,
            (lowest - mean) / std,
            (highest - mean) / std,
        )

    def metrics(self) -> State:
        return {}

    def state(self) -> State:
        return self.batches.state()

    def load_state(self, state: State) -> None:
        self.batches.load_state(state)


def _runs(transitions: Transitions, rows: Int[Tensor, "m"]) -> Int[Tensor, "b"]:
    """A number for each row, which changes where steps inside or outside of `rows` end."""
    episode, obs = transitions.episode, transitions.observation
    inside = torch.zeros_like(episode, dtype=torch.bool)
    inside[rows] = True
    goes_on = (obs[1:] == transitions.next_observation[:-1]).all(-1)
    follows = (episode[1:] == episode[:-1]) & (inside[1:] == inside[:-1]) & goes_on
    return torch.cat([torch.zeros_like(episode[:1]), (~follows).long().cumsum(0)])


@runtime_checkable
class OuterSource(Protocol):
    """Endless batches of the outer level, metrics to log, and what a checkpoint holds of them."""

    def __next__(self) -> Any: ...

    def metrics(self) -> State: ...

    def state(self) -> State: ...

    def load_state(self, state: State) -> None: ...


MakeBatches = Callable[[Int[Tensor, "e m"], torch.Generator], OuterSource]


@dataclass(frozen=True)
class OuterData:
    """Batches for the outer level, and the training rows [E, N] left to each member's inner level.

    `inner_rows` is None where every member learns from all training rows.
    """

    batches: OuterSource
    inner_rows: Int[Tensor, "e n"] | None = None


def cross_fitted(
    train: Transitions,
    members: int,
    make: MakeBatches,
    *,
    folds: int,
    generator: torch.Generator,
) -> OuterData:
    """Each member leaves out one fold of episodes, which is its outer data.

    `make` gives the batches of the rows of `train` that each member leaves out; there are fewer
    folds where there are fewer episodes.

    Raises:
        InputError: fewer than two members, or fewer episodes than members.
    """
    order = _order(generator)
    # More folds than members leave each member more rows to learn from.
    folds = max(members, min(folds, train.episodes))
    inner, left_out = cross_fit(train.episode, members, generator, folds, train.group)
    return OuterData(make(left_out, order), inner)


def same_for_all(
    transitions: Transitions, members: int, make: MakeBatches, *, generator: torch.Generator
) -> OuterData:
    """All rows of `transitions` are the outer data of every member."""
    order = _order(generator)
    rows = torch.arange(len(transitions), device=transitions.reward.device)
    return OuterData(make(rows.expand(members, -1), order))


def _order(generator: torch.Generator) -> torch.Generator:
    """A generator of the batches' own, seeded by the one that is given."""
    # Batches of the outer level must not shift those of the inner one.
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator(generator.device).manual_seed(seed)
