import warnings
from dataclasses import replace
from itertools import chain

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mbrl_bilevel.data.transitions import Transitions, split_by_episode
from mbrl_bilevel.errors import InputError
from tests.hypothesis_settings import examples


def made_of(lengths: list[int]) -> Transitions:
    """Episodes of the given lengths; the reward numbers the transitions."""
    total = sum(lengths)
    numbers = torch.arange(total, dtype=torch.float32)
    return Transitions(
        observation=numbers[:, None],
        action=torch.zeros(total, 1),
        reward=numbers,
        next_observation=numbers[:, None] + 1,
        terminated=torch.zeros(total, dtype=torch.bool),
        truncated=torch.zeros(total, dtype=torch.bool),
        episode=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)),
    )


def split(lengths: list[int], fractions: list[float], seed: int = 0) -> tuple[Transitions, ...]:
    return split_by_episode(made_of(lengths), fractions, torch.Generator().manual_seed(seed))


def test_steps_left_are_counted_to_the_end_of_the_episode():
    assert made_of([3, 1, 2]).steps_left.tolist() == [3, 2, 1, 1, 2, 1]


def dealt_whole(lengths: list[int], fractions: list[float], seed: int) -> list[int]:
    """The part of each episode by the rule for ordinary data, on which published figures stand."""
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
    lacking = [sum(lengths) * fraction for fraction in fractions]
    part_of_episode = [0] * len(lengths)
    for rank, episode in enumerate(order):
        part = rank if rank < len(fractions) else lacking.index(max(lacking))
        part_of_episode[episode] = part
        lacking[part] -= lengths[episode]
    return part_of_episode


FRACTIONS = ([0.8, 0.1, 0.1], [0.9, 0.1], [0.7, 0.2, 0.1], [0.34, 0.66])


@pytest.mark.situation("right")
@examples(60)
@given(
    lengths=st.integers(2, 200).flatmap(
        lambda longest: st.lists(st.integers(-(-longest // 2), longest), min_size=10, max_size=60)
    ),
    fractions=st.sampled_from(FRACTIONS),
    seed=st.integers(0, 2**31),
)
def test_many_episodes_of_similar_length_are_dealt_whole(
    lengths: list[int], fractions: list[float], seed: int
) -> None:
    expected = dealt_whole(lengths, fractions, seed)
    # A part that gets a single short episode may miss half of its share: then long ones are cut.
    for number, fraction in enumerate(fractions):
        dealt = sum(n for n, part in zip(lengths, expected, strict=True) if part == number)
        assume(dealt >= fraction * sum(lengths) / 2)
    for number, part in enumerate(split(lengths, fractions, seed)):
        assert part.episode.unique().tolist() == [e for e, p in enumerate(expected) if p == number]


@pytest.mark.situation("right")
@pytest.mark.parametrize(
    "lengths", [[7] * 4, [1] * 300, [50] * 20, [1000] * 100, list(range(20, 220))]
)
@pytest.mark.parametrize("seed", range(3))
def test_usual_data_sets_are_dealt_whole(lengths: list[int], seed: int) -> None:
    expected = dealt_whole(lengths, [0.8, 0.1, 0.1], seed)
    for number, part in enumerate(split(lengths, [0.8, 0.1, 0.1], seed)):
        assert part.episode.unique().tolist() == [e for e, p in enumerate(expected) if p == number]


@examples(100)
@given(
    lengths=st.lists(st.integers(1, 40) | st.integers(40, 3000), min_size=1, max_size=30),
    weights=st.lists(st.integers(1, 10), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_every_row_lands_in_one_part_and_none_is_starved(
    lengths: list[int], weights: list[int], seed: int
) -> None:
    fractions, total = [weight / sum(weights) for weight in weights], sum(lengths)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if len(lengths) < len(weights) and max(lengths) < len(weights):  # nothing can be cut
            with pytest.raises(InputError, match="collect more episodes"):
                split(lengths, fractions, seed)
            return
        parts = split(lengths, fractions, seed)
    assert sorted(torch.cat([p.reward for p in parts]).tolist()) == list(range(total))
    for part, fraction in zip(parts, fractions, strict=True):
        assert len(part) > 0
        assert bool((part.reward.diff() > 0).all())
        # A share of a few rows is missed by those that cannot be cut in so many.
        assert len(part) >= 0.5 * fraction * total - len(weights) * len(lengths) / 2


@pytest.mark.situation("warned")
@pytest.mark.parametrize("seed", range(6))
def test_a_long_episode_among_short_ones_is_cut_so_that_most_rows_train(seed: int) -> None:
    with pytest.warns(UserWarning, match="1 of 5 episodes is so long.*blocks of time"):
        parts = split([2000, 5, 5, 5, 5], [0.8, 0.1, 0.1], seed)
    for part, rows in zip(parts, (1616, 202, 202), strict=True):
        assert abs(len(part) - rows) <= 5
        of_the_long_one = part.reward[part.episode == 0]
        assert bool((of_the_long_one.diff() == 1).all())
    whole = [set(p.episode.tolist()) - {0} for p in parts]
    assert sum(map(len, whole)) == len(set.union(*whole)) == 4


@pytest.mark.situation("warned")
@pytest.mark.parametrize("lengths", [[500, 500], [500, 300], [100, 100, 100]])
def test_two_long_episodes_are_cut_as_one_is(lengths: list[int]) -> None:
    with pytest.warns(
        UserWarning, match=f"{len(lengths)} of {len(lengths)} episodes (is|are) so long"
    ):
        parts = split(lengths, [0.8, 0.1, 0.1])
    begins = [sum(lengths[:e]) for e in range(len(lengths))]
    for episode, (begin, steps) in enumerate(zip(begins, lengths, strict=True)):
        numbers = [p.reward[p.episode == episode].tolist() for p in parts]
        assert list(chain(*numbers)) == list(range(begin, begin + steps))
        assert [len(n) for n in numbers] == [0.8 * steps, 0.1 * steps, 0.1 * steps]


def copied(lengths: list[int], copies: list[int]) -> Transitions:
    """Episodes of the given lengths, of which episode i is repeated copies[i] times."""
    data, episodes = made_of(lengths), range(len(lengths))
    turns = [e for turn in range(max(copies)) for e in episodes if turn < copies[e]]
    rows = [torch.nonzero(data.episode == e).squeeze(-1) for e in turns]
    numbers = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(r) for r in rows]))
    return replace(data[torch.cat(rows)], episode=numbers)


@pytest.mark.situation("warned")
@pytest.mark.parametrize("copies", [[6] * 10, [2] + [1] * 9, [1, 3] * 5])
def test_copies_of_an_episode_stay_in_one_part(copies: list[int]) -> None:
    data = copied([20 + i for i in range(10)], copies)
    extra = sum(copies) - 10
    told = f"{extra} of {sum(copies)} episodes (is a copy|are copies).*only 10 "
    with pytest.warns(UserWarning, match=told):
        parts = split_by_episode(data, (0.8, 0.1, 0.1), torch.Generator().manual_seed(0))
    seen = [set(p.reward.tolist()) for p in parts]
    assert len(set.union(*seen)) == sum(map(len, seen))
    assert sum(map(len, parts)) == len(data)


@pytest.mark.situation("warned")
def test_copies_of_a_long_episode_are_cut_at_the_same_times() -> None:
    data, generator = copied([100], [3]), torch.Generator().manual_seed(0)
    with (
        pytest.warns(UserWarning, match="2 of 3 episodes are copies"),
        pytest.warns(UserWarning, match="3 of 3 episodes are so long"),
    ):
        parts = split_by_episode(data, (0.8, 0.1, 0.1), generator)
    assert [sorted(set(p.reward.tolist())) for p in parts] == [
        list(range(80)), list(range(80, 90)), list(range(90, 100))
    ]  # fmt: skip
    assert [len(p) for p in parts] == [240, 30, 30]


def test_episodes_that_begin_and_end_alike_are_no_copies() -> None:
    data = copied([5] * 10, [2] * 10)
    data.reward[data.episode == 12] += torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0])
    with pytest.warns(UserWarning, match="9 of 20 episodes are copies"):
        data.group.unique()


def test_copies_that_cannot_be_dealt_are_refused() -> None:
    data, generator = copied([1], [9]), torch.Generator().manual_seed(0)
    with pytest.warns(UserWarning, match="copies"), pytest.raises(InputError, match="1 episode "):
        split_by_episode(data, (0.5, 0.5), generator)


def test_fractions_are_kept_and_seeds_differ() -> None:
    lengths = [10] * 100
    train, outer, test = split(lengths, [0.7, 0.2, 0.1])
    assert [len(train), len(outer), len(test)] == [700, 200, 100]
    again = split(lengths, [0.7, 0.2, 0.1])
    assert torch.equal(train.episode, again[0].episode)
    other = split(lengths, [0.7, 0.2, 0.1], seed=1)
    assert not torch.equal(train.episode, other[0].episode)


def test_every_episode_is_as_likely_to_be_held_out() -> None:
    """Over 400 seeds each of 10 equal episodes is held out 40 +- 6 times; 5 deviations allowed."""
    held_out = torch.zeros(10)
    for seed in range(400):
        held_out[split([3] * 10, [0.9, 0.1], seed)[1].episode.unique()] += 1
    assert held_out.sum() == 400
    assert bool(((held_out - 40).abs() < 30).all())


@pytest.mark.situation("warned")
def test_a_single_episode_is_split_in_time_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="single episode.*collect more episodes"):
        train, test = split([10], [0.8, 0.2])
    assert train.reward.tolist() == list(range(8))
    assert test.reward.tolist() == [8, 9]
    with pytest.warns(UserWarning, match="single episode"):
        parts = split([3], [0.98, 0.01, 0.01])
    assert [len(p) for p in parts] == [1, 1, 1]


@pytest.mark.parametrize(
    "fractions", [[], [1.0, 0.0], [0.5, 0.4], [1.2, -0.2], [float("nan"), 1.0]]
)
def test_fractions_that_are_none(fractions: list[float]) -> None:
    with pytest.raises(InputError, match="must be positive and sum to 1"):
        split([5, 5], fractions)


def test_too_few_transitions_in_a_single_episode() -> None:
    with pytest.raises(InputError, match="2 transitions cannot be split into 3 parts"):
        split([2], [0.4, 0.3, 0.3])


def test_one_part_is_everything() -> None:
    assert len(split([4], [1.0])[0]) == 4
