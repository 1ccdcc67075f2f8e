import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl_bilevel.data.transitions import Transitions, split_by_episode
from mbrl_bilevel.errors import InputError


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


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=2, max_size=40),
    weights=st.lists(st.integers(1, 10), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_whole_episodes_each_in_one_part(lengths: list[int], weights: list[int], seed: int) -> None:
    fractions = [weight / sum(weights) for weight in weights]
    if len(lengths) < len(weights):
        with pytest.raises(InputError, match="collect more episodes"):
            split(lengths, fractions, seed)
        return
    parts = split(lengths, fractions, seed)
    assert sorted(torch.cat([p.reward for p in parts]).tolist()) == list(range(sum(lengths)))
    episodes = [set(p.episode.tolist()) for p in parts]
    assert sum(map(len, episodes)) == len(set.union(*episodes)) == len(lengths)
    for part, fraction in zip(parts, fractions, strict=True):
        assert len(part) > 0
        assert bool((part.reward.diff() > 0).all())
        # A part takes at most one episode beyond its share; the first deal gives each one.
        assert len(part) < fraction * sum(lengths) + max(lengths)


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
