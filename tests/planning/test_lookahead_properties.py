"""Whatever the box: no planner leaves it, none returns NaN, and all follow goals that jump."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mbrl_bilevel.planning.cem import CEM
from mbrl_bilevel.planning.icem import ICEM
from mbrl_bilevel.planning.mppi import MPPI
from mbrl_bilevel.planning.random_shooting import RandomShooting
from tests.hypothesis_settings import examples
from tests.planning.toy_problems import ClosedTask, LinearModel, Recorded

KINDS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "random shooting": (RandomShooting, {"samples": 256}),
    "CEM": (CEM, {"samples": 48, "elites": 7}),
    "iCEM": (ICEM, {"samples": 48, "elites": 7}),
    "MPPI": (MPPI, {"samples": 48}),
}
ANY = st.floats(-1e6, 1e6, allow_subnormal=False)


@st.composite
def boxes(draw: st.DrawFn, dims: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [a] as environments declare them, float32 or float64; huge, tiny, with a zero."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    count = draw(st.integers(1, 3)) if dims is None else dims
    low, high = [], []
    for _ in range(count):
        begin = draw(st.sampled_from([0.0, -1.0, 0.1, -0.7]) | ANY)
        width = draw(st.floats(1e-3, 1e3) | st.floats(1e-7, 1e6))
        width = max(width, 4 * float(np.spacing(np.float32(abs(begin)))))  # room for a float32
        ends = (begin, begin + width) if draw(st.booleans()) else (begin - width, begin)
        bottom, top = np.array(ends, dtype)
        low.append(bottom)
        high.append(top)
    return np.array(low, dtype), np.array(high, dtype)


def model(actions: int) -> LinearModel:
    """The place moves by the actions; the goal, in as many dimensions, stays."""
    eye, zero = torch.eye(actions), torch.zeros(actions, actions)
    return LinearModel(torch.eye(2 * actions), torch.cat([eye, zero]))


def towards(actions: int) -> ClosedTask:
    return ClosedTask(
        lambda obs, act, next_obs: (
            -(next_obs[..., :actions] - next_obs[..., actions:]).abs().sum(-1)
        )
    )


def inside(actions: Tensor, low: np.ndarray, high: np.ndarray) -> bool:
    """As the environment's own space would say of the action that it is given."""
    given = actions.numpy()
    return bool(np.isfinite(given).all() and (given >= low).all() and (given <= high).all())


@pytest.mark.situation("right")
@pytest.mark.parametrize("name", KINDS)
@examples(12)
@given(
    box=boxes(),
    rows=st.integers(1, 3),
    repeat=st.integers(1, 3),
    seed=st.integers(0, 2**31),
    goal=ANY,
)
def test_actions_stay_in_the_box(
    name: str,
    box: tuple[np.ndarray, np.ndarray],
    rows: int,
    repeat: int,
    seed: int,
    goal: float,
) -> None:
    (low, high), (kind, settings) = box, KINDS[name]
    plan = kind(low, high, horizon=4, action_repeat=repeat, **settings)
    generator = torch.Generator().manual_seed(seed)
    task, actions = towards(len(low)), len(low)
    for side in (1.0, 1.0, -1.0):
        obs = torch.cat([torch.zeros(rows, actions), torch.full((rows, actions), side * goal)], -1)
        found = plan(model(actions), task, obs, generator)
        assert found.shape == (rows, 4, actions)
        assert inside(found, low, high)


@pytest.mark.situation("right")
@pytest.mark.parametrize("name", KINDS)
@examples(8)
@given(
    box=boxes(),
    values=st.lists(
        st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1e30, -1e38]), min_size=1, max_size=8
    ),
    seed=st.integers(0, 2**31),
)
def test_futures_that_are_not_finite_leave_a_finite_plan(
    name: str, box: tuple[np.ndarray, np.ndarray], values: list[float], seed: int
) -> None:
    """Whatever the model says: NaN, Inf, huge numbers, in some futures or in all of them."""
    (low, high), (kind, settings) = box, KINDS[name]
    plan, generator = kind(low, high, horizon=3, **settings), torch.Generator().manual_seed(seed)
    task = ClosedTask(lambda obs, act, next_obs: next_obs[..., 0])

    class Says:
        def trajectories(self, obs: Tensor, actions: Tensor, _: torch.Generator) -> Any:
            b, n, t, _ = actions.shape
            said = torch.tensor(values)
            chosen = torch.randint(len(values), (1, b, n, t + 1, 2), generator=generator)
            return Recorded(said[chosen]).trajectories(obs, actions, generator)

    for _ in range(3):
        assert inside(plan(Says(), task, torch.zeros(2, 2), generator), low, high)


@pytest.mark.situation("right")
@pytest.mark.parametrize("name", KINDS)
@examples(4)
@given(
    box=boxes(dims=1),
    held=st.lists(st.integers(9, 14), min_size=2, max_size=3),
    side=st.sampled_from([1.0, -1.0]),
    seed=st.integers(0, 2**31),
)
def test_goals_that_jump_are_followed(
    name: str, box: tuple[np.ndarray, np.ndarray], held: list[int], side: float, seed: int
) -> None:
    """On the goal's side of the box by the fourth step after each jump, however long it stayed."""
    (low, high), (kind, settings) = box, KINDS[name]
    middle, half_width = (low + high) / 2, (high - low) / 2
    plan, generator = kind(low, high, horizon=3, **settings), torch.Generator().manual_seed(seed)
    # in units of the box, so that rounding of huge or tiny boxes does not hide the goal
    task = ClosedTask(
        lambda obs, act, next_obs: (
            -((act - float(middle[0])) / float(half_width[0]) - obs[..., 1:]).square().sum(-1)
        )
    )
    for steps in held:
        obs = torch.tensor([[0.0, side]])
        for step in range(steps):
            action = plan(model(1), task, obs, generator)[0, 0].numpy()
            assert inside(torch.from_numpy(action), low, high)
            if step >= 3 and half_width[0] > 1e-5 * abs(middle[0]):
                assert side * (action - middle)[0] > 0, (step, action)
        side = -side
