"""Rows by episode: how long each goes on, and which part of a data set each row goes to."""

import warnings
from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.wording import counted

STARVED = 0.5  # of the rows that a part should have


def with_copies(
    episode: Int[Tensor, "b"], columns: Sequence[Shaped[Tensor, "b ..."]]
) -> Int[Tensor, "b"]:
    """Each row's group: its episode, or the first of those whose rows are all the same to the bit.

    Groups are numbered 0, 1, ... in the order of their first episodes. Copies are warned of.
    """
    _, index, lengths = episode.unique(return_inverse=True, return_counts=True)
    order, ends = index.argsort(stable=True), lengths.cumsum(0)
    firsts, lasts = order[ends - lengths], order[ends - 1]
    flat = [column.reshape(len(episode), -1) for column in columns]
    edges = [column[rows].cpu().numpy() for column in flat for rows in (firsts, lasts)]
    alike = defaultdict(list)
    for e, length in enumerate(lengths.tolist()):
        alike[(length, *(edge[e].tobytes() for edge in edges))].append(e)
    group = list(range(len(lengths)))
    for candidates in alike.values():
        if len(candidates) > 1:
            first_of: dict[bytes, int] = {}
            for e in candidates:
                rows = order[ends[e] - lengths[e] : ends[e]]
                content = b"".join(column[rows].cpu().numpy().tobytes() for column in flat)
                group[e] = first_of.setdefault(content, e)
    copies = sum(g != e for e, g in enumerate(group))
    if copies:
        what = "is a copy of another" if copies == 1 else "are copies of others"
        warnings.warn(
            f"{copies} of {len(group)} episodes {what}, row by row: copies stay in "
            "one part, so that a model is not tested on what it was trained on, and only "
            f"{counted(len(group) - copies, 'different episode')} remain; remove the copies",
            stacklevel=4,
        )
    return torch.tensor(group, device=index.device)[index].unique(return_inverse=True)[1]


def steps_left(run: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
    """How many rows there are from each row, itself among them, until the number of `run` changes.

    For the numbers of the episodes these are recorded steps.
    """
    _, number, lengths = torch.unique_consecutive(run, return_inverse=True, return_counts=True)
    return lengths.cumsum(0)[number] - torch.arange(len(run), device=run.device)


def part_of_rows(
    episode: Int[Tensor, "b"],
    group: Int[Tensor, "b"],
    fractions: Sequence[float],
    generator: torch.Generator,
    remedy: str,
) -> Int[Tensor, "b"]:
    """The part of each row, by about `fractions` of the rows; `group` as `with_copies` gives it.

    Groups are dealt whole, in random order, each to the part that lacks most. Where that leaves a
    part with less than half of its share, the episodes longer than half of the smallest share are
    cut into blocks of time instead, one for each part, with a UserWarning.

    Raises:
        InputError: fewer rows than parts, or fewer groups than parts of which none can be cut.
    """
    parts, total = len(fractions), len(episode)
    if total < parts:
        raise InputError(
            f"{counted(total, 'transition')} cannot be split into {parts} parts; {remedy}"
        )
    sizes = group.bincount().tolist()
    order: list[int] = [0]
    dealt = None
    if len(sizes) > 1:
        order = torch.randperm(len(sizes), generator=generator, device=generator.device).tolist()
    if len(sizes) >= parts > 1:
        shares = [total * fraction for fraction in fractions]
        dealt, lacking = _deal(sizes, order, shares, one_each=True)
        if all(lack <= (1 - STARVED) * s for lack, s in zip(lacking, shares, strict=True)):
            return torch.tensor(dealt, device=group.device)[group]
    found = _cut(episode, group, order, fractions, remedy)
    if found is not None:
        return found
    if dealt is None:
        raise InputError(
            f"{counted(len(sizes), 'episode')} cannot be split into {parts} parts; {remedy}"
        )
    return torch.tensor(dealt, device=group.device)[group]


def _deal(
    sizes: Sequence[int], order: Sequence[int], shares: Sequence[float], *, one_each: bool
) -> tuple[list[int], list[float]]:
    """The part of each group, and what parts still lack: each goes to the part that lacks most."""
    lacking = list(shares)
    part_of_group = [0] * len(sizes)
    for rank, group in enumerate(order):
        first = one_each and rank < len(lacking)
        part = rank if first else lacking.index(max(lacking))
        part_of_group[group] = part
        lacking[part] -= sizes[group]
    return part_of_group, lacking


def _cut(
    episode: Int[Tensor, "b"],
    group: Int[Tensor, "b"],
    order: Sequence[int],
    fractions: Sequence[float],
    remedy: str,
) -> Int[Tensor, "b"] | None:
    """The part of each row when long episodes are cut; None where none can be."""
    parts, total = len(fractions), len(episode)
    _, index, lengths = episode.unique(return_inverse=True, return_counts=True)
    length, size = lengths[index], group.bincount()
    is_long = (size[group] > STARVED * min(fractions) * total) & (length >= parts)
    if not bool(is_long.any()):
        return None
    rows = index.argsort(stable=True)
    position = torch.empty_like(rows)
    starts = (lengths.cumsum(0) - lengths)[index[rows]]
    position[rows] = torch.arange(total, device=rows.device) - starts
    part = torch.zeros_like(group)
    for steps in length[is_long].unique().tolist():
        cuts = torch.tensor(_cuts(steps, fractions), device=group.device)
        here = is_long & (length == steps)
        part[here] = torch.bucketize(position[here], cuts, right=True)
    _warn_of_cuts(index, is_long, lengths, remedy)
    taken = part[is_long].bincount(minlength=parts).tolist()
    lacking = [total * f - t for f, t in zip(fractions, taken, strict=True)]
    long_groups = set(group[is_long].unique().tolist())
    rest = [g for g in order if g not in long_groups]
    dealt, _ = _deal(size.tolist(), rest, lacking, one_each=False)
    return torch.where(is_long, part, torch.tensor(dealt, device=group.device)[group])


def _cuts(steps: int, fractions: Sequence[float]) -> list[int]:
    """Where blocks of time end that hold about `fractions` of `steps`, and at least one step."""
    parts, cuts = len(fractions), [0]
    for k in range(1, parts):
        wanted = round(steps * sum(fractions[:k]))
        cuts.append(min(max(wanted, cuts[-1] + 1), steps - (parts - k)))
    return cuts[1:]


def _warn_of_cuts(
    index: Int[Tensor, "b"], is_long: Shaped[Tensor, "b"], lengths: Int[Tensor, "n"], remedy: str
) -> None:
    cut = len(index[is_long].unique())
    are = "is" if cut == 1 else "are"
    what = f"{cut} of {len(lengths)} episodes {are} so long that whole ones would starve a part"
    if len(lengths) == 1:
        what = "the data holds a single episode"
    warnings.warn(
        f"{what}: split into blocks of time, side by side, of which each part gets one, held-out "
        f"metrics will look better than they are; {remedy}",
        stacklevel=5,
    )
