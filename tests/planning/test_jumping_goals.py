"""The best action jumps from one bound to the other: no planner may stay where it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.planning.cem import CEM
from mbrl_bilevel.planning.icem import ICEM
from mbrl_bilevel.planning.mppi import MPPI
from mbrl_bilevel.planning.random_shooting import RandomShooting
from tests.planning.closed_worlds import ClosedTask, LinearModel

PLANNERS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (RandomShooting, {"samples": 512}),
    (CEM, {"samples": 64, "elites": 8}),
    (ICEM, {"samples": 64, "elites": 8}),
    (MPPI, {"samples": 64}),
]
HORIZON, HELD, JUMPS = 3, 12, 4
FAR = 1000.0

# Observations hold place and goal; the place moves by the action, the goal stays.
MOVES = LinearModel(torch.eye(2), torch.tensor([[1.0], [0.0]]))
TOWARDS_THE_GOAL = ClosedTask(
    lambda obs, act, next_obs: -(next_obs[..., 0] - next_obs[..., 1]).abs()
)


def chase(plan: Any, rows: int) -> tuple[Tensor, Tensor]:
    """First actions [jump, step, row], and the side (1 or -1) that each row's goal is on [...].

    Neighbouring rows have their goals on opposite sides. Goals are too far to be reached.
    """
    generator = torch.Generator().manual_seed(0)
    place, actions, sides = torch.zeros(rows), [], []
    for step in range(HELD * JUMPS):
        side = (-1.0) ** (step // HELD + torch.arange(rows))
        obs = torch.stack([place, FAR * side], dim=-1)
        action = plan(MOVES, TOWARDS_THE_GOAL, obs, generator)[:, 0, 0]
        place = place + action
        actions.append(action)
        sides.append(side)
    return (torch.stack(found).unflatten(0, (JUMPS, HELD)) for found in (actions, sides))


@pytest.mark.situation("right")
@pytest.mark.parametrize(("kind", "settings"), PLANNERS)
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 5.0), (-3.0, 0.5)])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_planner_follows_a_goal_from_bound_to_bound(
    kind: Callable[..., Any], settings: dict[str, Any], low: float, high: float, rows: int
) -> None:
    plan = kind([low], [high], horizon=HORIZON, **settings)
    actions, sides = chase(plan, rows)
    assert (actions >= low).all()
    assert (actions <= high).all()
    middle, half_width = (low + high) / 2, (high - low) / 2
    towards = (actions - middle) / half_width * sides  # 1: at the right bound, -1: at the wrong one
    assert (towards[:, 2:] > 0).all(), towards  # on the right side by the third step
    assert (towards[:, 8:] > 0.6).all(), towards
    assert towards[:, 8:].mean() > 0.85, towards
