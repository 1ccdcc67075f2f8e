"""The three parts of a data set: to train on, to select by, and to test on."""

import torch

from mbrl_bilevel.data.transitions import Transitions, split_by_episode
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import flag

PARTS = (0.8, 0.1, 0.1)  # of the transitions, by whole episodes: training, held out, test


def split(
    transitions: Transitions, seed: int = 0, *, max_transitions: int | None = None
) -> tuple[Transitions, Transitions, Transitions]:
    """The training, held-out and test parts that every command agrees on, given a run's seed.

    Episodes stay whole, and copies of an episode together; see `split_by_episode`. With
    `max_transitions`, episodes drawn by the seed are split, of about so many transitions.

    Raises:
        InputError: fewer transitions than parts, or a part that would be empty.
    """
    if max_transitions is not None and max_transitions < len(PARTS):
        raise InputError(
            f"{flag('max_transitions')} {max_transitions}: training, held-out and test part need "
            f"at least {len(PARTS)}"
        )
    generator = torch.Generator().manual_seed(seed)
    if max_transitions is not None and max_transitions < len(transitions):
        share = max_transitions / len(transitions)
        transitions = split_by_episode(transitions, (share, 1 - share), generator)[0]
    train, held_out, test = split_by_episode(transitions, PARTS, generator)
    return train, held_out, test
