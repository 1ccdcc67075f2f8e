"""Splits of whatever data: disjoint and complete, none starved, copies together, in time."""

import contextlib
import warnings

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mbrl_bilevel.data.transitions import Transitions, split_by_episode
from mbrl_bilevel.errors import InputError
from tests.hypothesis_settings import examples

FRACTIONS = st.sampled_from([(0.8, 0.1, 0.1), (0.9, 0.1), (0.5, 0.5), (0.34, 0.33, 0.33), (1.0,)])


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[Transitions, list[int]]:
    """Episodes of any lengths in any dtype, some of them copies; and which one each copies."""
    lengths = draw(
        st.lists(st.integers(1, 6) | st.integers(1, 60) | st.just(400), min_size=1, max_size=12)
    )
    original = list(range(len(lengths)))
    for _ in range(draw(st.integers(0, 6))):
        original.append(draw(st.sampled_from(original)))
    original = draw(st.permutations(original))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    numbered = iter(range(10**6))
    contents = [[next(numbered) for _ in range(length)] for length in lengths]
    rows = torch.tensor([n for e in original for n in contents[e]], dtype=dtype)
    counts = torch.tensor([lengths[e] for e in original])
    offset = draw(st.sampled_from([0.0, -1e3, 2.0**22]))
    never = torch.zeros(len(rows), dtype=torch.bool)
    data = Transitions(
        observation=torch.stack([rows + offset, torch.ones_like(rows)], -1),
        action=torch.zeros(len(rows), 1, dtype=dtype),
        reward=rows,
        next_observation=torch.stack([rows + offset + 1, torch.ones_like(rows)], -1),
        terminated=never,
        truncated=never,
        episode=torch.arange(len(original)).repeat_interleave(counts),
    )
    return data, original


def split(data: Transitions, fractions: tuple[float, ...], seed: int) -> tuple[Transitions, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return split_by_episode(data, fractions, torch.Generator().manual_seed(seed))


@pytest.mark.situation("right")
@examples(120)
@given(data_set=data_sets(), fractions=FRACTIONS, seed=st.integers(0, 2**31))
def test_parts_of_any_data_set(
    data_set: tuple[Transitions, list[int]], fractions: tuple[float, ...], seed: int
) -> None:
    data, original = data_set
    lengths, parts_wanted = torch.bincount(data.episode), len(fractions)
    if len(set(original)) < parts_wanted and int(lengths.max()) < parts_wanted:
        with contextlib.suppress(InputError):  # most of such data are too little to split
            split(data, fractions, seed)
        return
    parts = split(data, fractions, seed)
    assert len(parts) == len(fractions)
    sizes = torch.bincount(torch.tensor(original)[data.episode])
    copied = int(sizes.max()) if len(set(original)) < len(original) else 0
    rows = [list(zip(p.episode.tolist(), p.reward.tolist(), strict=True)) for p in parts]
    everything = sorted(row for part in rows for row in part)
    assert everything == sorted(zip(data.episode.tolist(), data.reward.tolist(), strict=True))
    for part, fraction in zip(parts, fractions, strict=True):
        assert len(part) > 0
        # In time within each episode, and episodes in their old order.
        assert bool((part.episode.diff() >= 0).all())
        same = part.episode.diff() == 0
        assert bool((part.reward.diff()[same] > 0).all())
        assert part.observation.dtype == data.observation.dtype
        # Starved by no more than the episodes that cannot be cut and the copies that stay together.
        short = len(fractions) * len(original) / 2 + copied
        assert len(part) >= 0.5 * fraction * len(data) - short
    seen = [set(p.reward.tolist()) for p in parts]  # numbers of rows: those of copies are the same
    assert len(set.union(*seen)) == sum(map(len, seen))


@pytest.mark.situation("right")
@examples(40)
@given(data_set=data_sets(), fractions=FRACTIONS, seed=st.integers(0, 2**31))
def test_the_same_seed_gives_the_same_parts_whatever_the_numbers(
    data_set: tuple[Transitions, list[int]], fractions: tuple[float, ...], seed: int
) -> None:
    data, original = data_set
    lengths = torch.bincount(data.episode)
    assume(len(set(original)) >= len(fractions) or int(lengths.max()) >= len(fractions))
    first, again = split(data, fractions, seed), split(data, fractions, seed)
    wide = split(Transitions(*(v.double() if v is not None and v.is_floating_point() else v
                               for v in vars(data).values())), fractions, seed)  # fmt: skip
    for one, two, three in zip(first, again, wide, strict=True):
        assert torch.equal(one.episode, two.episode)
        assert torch.equal(one.reward, two.reward)
        assert torch.equal(one.reward.double(), three.reward)
