"""Schedules at their ends, in the middle and where they are wrong."""

import math

import pytest

from mbrl_bilevel.agents.schedule import Schedule
from mbrl_bilevel.errors import InputError


@pytest.mark.parametrize(
    ("step", "value"), [(0, 10.0), (100, 10.0), (125, 8.5), (150, 7.0), (200, 4.0), (9999, 4.0)]
)
def test_a_line_between_two_levels(step: int, value: float) -> None:
    assert Schedule(10.0, 4.0, 100, 200)(step) == value
    assert Schedule(4.0, 10.0, 100, 200)(step) == 14.0 - value
    assert Schedule(10.0, 4.0, 100, 200).largest == 10.0


@pytest.mark.parametrize(
    "bad", [(-1.0, 0.0), (0.0, math.inf), (math.nan, 0.0), (0.0, 0.0, 3, 3), (0.0, 0.0, -1, 3)]
)
def test_bad_input(bad: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="from"):
        Schedule(*bad)  # type: ignore[arg-type]
