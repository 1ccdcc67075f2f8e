"""Transitions as tensors, and their split by episode."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError


@dataclass(frozen=True)
class Transitions:
    """Every transition of a data set, in the environment's own units, in the order of time.

    `episode` numbers the episodes 0, 1, ...; a transition's neighbours in time stand beside it.
    Truncation (a time limit) is kept apart from termination, because values bootstrap through it.
    """

    observation: Float[Tensor, "b o"]
    action: Float[Tensor, "b a"]
    reward: Float[Tensor, "b"]
    next_observation: Float[Tensor, "b o"]
    terminated: Bool[Tensor, "b"]
    truncated: Bool[Tensor, "b"]
    episode: Int[Tensor, "b"]

    def __len__(self) -> int:
        return self.observation.shape[0]

    def __getitem__(self, index: Tensor | slice) -> "Transitions":
        """The transitions at `index` (a slice, integers or a mask), in that order."""
        return Transitions(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device | str) -> "Transitions":
        """The same transitions on another device."""
        return Transitions(*(getattr(self, f.name).to(device) for f in fields(self)))

    @property
    def episodes(self) -> int:
        """How many different episodes these transitions come from."""
        return int(self.episode.unique().numel())


def split_by_episode(
    transitions: Transitions, fractions: Sequence[float], generator: torch.Generator
) -> tuple[Transitions, ...]:
    """Parts of about `fractions` of the transitions each; no episode stands on two sides.

    Every transition lands in exactly one part, in its old order, and no part is empty. Episodes are
    dealt in random order, each to the part that lacks most, so that a part misses its share by no
    more than about one episode. A single episode is cut into blocks of time, with a UserWarning.

    Raises:
        InputError: fractions that are not positive or do not sum to 1, fewer episodes (or, with one
            episode, transitions) than parts.
    """
    if not all(fraction > 0 for fraction in fractions) or not abs(sum(fractions) - 1) < 1e-6:
        raise InputError(f"fractions {list(fractions)} must be positive and sum to 1")
    numbers, episode, lengths = transitions.episode.unique(return_inverse=True, return_counts=True)
    parts, episodes = len(fractions), numbers.numel()
    if parts == 1:
        return (transitions,)
    if episodes == 1:
        return _split_in_time(transitions, fractions)
    if episodes < parts:
        raise InputError(
            f"{episodes} episodes cannot be split into {parts} parts; collect more episodes"
        )
    order = torch.randperm(episodes, generator=generator, device=generator.device).tolist()
    part_of_episode = _deal(lengths.tolist(), order, fractions)
    part = torch.tensor(part_of_episode, device=episode.device)[episode]
    return tuple(transitions[part == k] for k in range(parts))


def _deal(lengths: list[int], order: list[int], fractions: Sequence[float]) -> list[int]:
    """The part of each episode: first one to every part, then each to the part that lacks most."""
    total = sum(lengths)
    lacking = [total * fraction for fraction in fractions]
    part_of_episode = [0] * len(lengths)
    for rank, episode in enumerate(order):
        part = rank if rank < len(lacking) else lacking.index(max(lacking))
        part_of_episode[episode] = part
        lacking[part] -= lengths[episode]
    return part_of_episode


def _split_in_time(transitions: Transitions, fractions: Sequence[float]) -> tuple[Transitions, ...]:
    total, parts = len(transitions), len(fractions)
    if total < parts:
        raise InputError(
            f"{total} transitions cannot be split into {parts} parts; collect more episodes"
        )
    warnings.warn(
        "the data holds a single episode, which is split into blocks of time: held-out figures "
        "will look better than they are; collect more episodes",
        stacklevel=3,
    )
    cuts = [0]
    for k in range(1, parts):
        wanted = round(total * sum(fractions[:k]))
        cuts.append(min(max(wanted, cuts[-1] + 1), total - (parts - k)))
    cuts.append(total)
    return tuple(transitions[a:b] for a, b in pairwise(cuts))
