"""Windows are what was recorded, and stay within an episode."""

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.windows import draw_windows
from tests.evaluation.drifting_system import drifting


def test_windows_hold_the_recorded_steps_and_no_step_of_another_episode():
    data = drifting((5, 3, 7))
    windows = draw_windows(data, 4, torch.Generator().manual_seed(0))
    left = data.steps_left
    assert windows.recorded.sum() == left.clamp(max=4).sum()
    rows = {tuple(row.tolist()): i for i, row in enumerate(data.observation)}
    for start, actions, truth, recorded in zip(
        windows.start, windows.actions, windows.truth, windows.recorded, strict=True
    ):
        row, steps = rows[tuple(start.tolist())], int(recorded.sum())
        assert steps == min(4, int(left[row]))
        assert recorded.tolist() == [True] * steps + [False] * (4 - steps)
        assert torch.equal(actions[:steps], data.action[row : row + steps])
        assert torch.equal(truth[:steps], data.next_observation[row : row + steps])


def test_every_row_is_as_likely_a_start_however_far_it_is_followed():
    data = drifting((30, 30))
    short = draw_windows(data, 2, torch.Generator().manual_seed(1), count=20)
    long = draw_windows(data, 25, torch.Generator().manual_seed(1), count=20)
    assert torch.equal(short.start, long.start)


@pytest.mark.parametrize("k", [0, -1])
def test_no_steps_are_refused(k):
    with pytest.raises(InputError, match="at least 1"):
        draw_windows(drifting(), k, torch.Generator())
