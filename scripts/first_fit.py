"""Whether an online agent's start steps are enough for the first fit of its model."""

import warnings
from bisect import bisect_left
from functools import partial

import torch

from mbrl_bilevel.agents.world import BLOCK, in_blocks
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.data.transitions import split_by_episode
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.training.batches import cross_fit

HELD_OUT = 0.1  # of the real data, at every fit of an online agent's model


def check_first_fit(objective: ObjectiveSpec, members: int, start_steps: int) -> None:
    """Refuses start steps that cannot be split as the objective needs, before any is taken.

    Raises:
        InputError: fewer than that, with the least number that is enough; or one member alone for
            an objective that leaves a fold out for each.
    """
    folds = objective.objective == "bilevel" and objective.outer_data == "cross_fit"
    if folds and members < 2:
        raise InputError(
            f"--members {members}: --objective bilevel leaves other data out for each member; "
            "choose at least 2, or --outer-data held_out"
        )
    enough = partial(_splits, objective if folds else None, members)
    if enough(start_steps):
        return
    most = BLOCK * (3 * members + 10)
    least = bisect_left(range(most), True, lo=start_steps, key=enough)
    why = f"leave a fold out for each of {members} --members" if folds else "hold data out"
    raise InputError(
        f"--start-steps {start_steps}: too few to fit the model and {why}; choose at least {least}"
        + (", or --outer-data held_out" if folds and _splits(None, members, start_steps) else "")
    )


def _splits(folds: ObjectiveSpec | None, members: int, count: int) -> bool:
    """Tries the split of `count` rows, and the folds if there are any."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(count, 1, generator=generator)  # no two alike: copies are kept together
    data = in_blocks(Batch(rows, rows, rows[:, 0], rows, torch.zeros(count)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data that are none
        try:
            train, _ = split_by_episode(data, (1 - HELD_OUT, HELD_OUT), generator)
            if folds is not None:
                wanted = max(members, min(folds.outer_folds, train.episodes))
                cross_fit(train.episode, members, generator, wanted)
        except InputError:
            return False
    return len(train) > 1  # changes of one row are constant
