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
    ("bad", "message"),
    [
        ((-1.0, 0.0), "from -1.0 to 0.0: both must be at least 0"),
        ((0.0, math.inf), "from 0.0 to inf: both .* finite"),
        ((math.nan, 0.0), "from nan to 0.0: both .* finite"),
        ((0.0, 0.0, 3, 3), "from step 3 to step 3: the second must be later"),
        ((0.0, 0.0, -1, 3), "from step -1 to step 3"),
    ],
)
def test_bad_input(bad: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule(*bad)  # type: ignore[arg-type]
