"""What every planner must do, in toy problems whose best plans are known."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.cem import CEM
from mbrl_bilevel.planning.icem import ICEM
from mbrl_bilevel.planning.mppi import MPPI
from mbrl_bilevel.planning.random_shooting import RandomShooting
from mbrl_bilevel.planning.score import Scoring
from mbrl_bilevel.protocols import Planner
from tests.planning.toy_problems import (
    START,
    A,
    B,
    ClosedTask,
    LinearModel,
    Poisoned,
    lq_optimum,
    lq_return,
    quadratic,
)

KINDS: list[Callable[..., Any]] = [RandomShooting, CEM, ICEM, MPPI]
T = 6
every_planner = pytest.mark.parametrize("kind", KINDS)


def planner(kind: Callable[..., Any], **changes: Any) -> Any:
    return kind(**{"action_low": [-8.0], "action_high": [8.0], "horizon": T, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# How much each must win of what there is to win over idleness; random shooting finds little.
@pytest.mark.parametrize(
    ("kind", "settings", "share"),
    [
        (RandomShooting, {"samples": 20_000}, 0.4),
        (CEM, {"samples": 300, "iterations": 12}, 0.99),
        (ICEM, {"samples": 300, "iterations": 12, "population_decay": 1.05}, 0.99),
        (MPPI, {"samples": 300, "iterations": 12, "init_std": 0.2, "temperature": 0.1}, 0.97),
    ],
)
def test_the_linear_quadratic_optimum(
    kind: Callable[..., Any], settings: dict[str, Any], share: float
) -> None:
    plan = planner(kind, **settings)(LinearModel(A, B), ClosedTask(quadratic), START, seeded())
    optimum, idle = lq_optimum(START, T), lq_return(START, torch.zeros(3, T, 1).double())
    reached = (lq_return(START, plan) - idle) / (optimum - idle)
    assert (reached <= 1 + 1e-9).all()  # nothing beats the Riccati solution
    assert (reached > share).all(), reached


@every_planner
def test_a_maze_of_two_moves_is_solved_as_by_brute_force(kind: Callable[..., Any]) -> None:
    """A reward with a false hill nearby and the true one in a corner of the box."""

    def hills(obs: Tensor, act: Tensor, next_obs: Tensor) -> Tensor:
        near = torch.exp(-2 * (next_obs[..., 0] - 0.5).square())
        return near + 3 * torch.exp(-2 * (next_obs[..., 0] + 1.6).square())

    one = torch.ones(1, 1, dtype=torch.float64)
    model, start = LinearModel(one, one), torch.zeros(1, 1, dtype=torch.float64)
    box = {"action_low": [-1.0], "action_high": [1.0], "horizon": 2}
    plan = planner(kind, **box, samples=2_000, **({} if kind is RandomShooting else WIDE))(
        model, ClosedTask(hills), start, seeded()
    )
    grid = torch.linspace(-1, 1, 81, dtype=torch.float64)
    pairs = torch.tensor(list(product(grid.tolist(), repeat=2)), dtype=torch.float64)
    score = Scoring()
    best = score(model, ClosedTask(hills), start, pairs[None, :, :, None], seeded()).returns.max()
    found = score(model, ClosedTask(hills), start, plan[:, None], seeded()).returns
    assert found.item() > 0.98 * best.item()


WIDE = {"init_std": 1.0, "iterations": 10}


@every_planner
def test_no_action_leaves_its_bounds_and_an_optimum_outside_ends_on_their_face(
    kind: Callable[..., Any],
) -> None:
    aim = torch.tensor([9.0, -9.0])
    task = ClosedTask(lambda obs, act, next_obs: -(act - aim).square().sum(-1))
    low, high = torch.tensor([-1.0, -3.0]), torch.tensor([2.0, 0.5])
    model = LinearModel(A.float(), torch.zeros(2, 2))
    plan = planner(kind, action_low=low, action_high=high, horizon=1, samples=1000)
    for _ in range(10):
        actions = plan(model, task, START.float(), seeded())
    for candidates in (*model.candidates, actions):
        assert (candidates >= low).all()
        assert (candidates <= high).all()
    assert (actions - torch.tensor([2.0, -3.0])).abs().max() < 0.5


@pytest.mark.situation("right")
@every_planner
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (np.float32([12.0]), np.float32([13.0])),  # a mean of bounds rounds to what is none of them
        (np.float32([0.1]), np.float32([0.7])),
        (np.array([0.1]), np.array([0.3])),  # in float32 they lie 1e-9 and 1e-8 outside
        (np.array([262144.01]), np.array([262145.01])),  # and here, 0.01
    ],
)
@pytest.mark.parametrize("side", [-1, 1])
def test_rounding_does_not_lead_out_of_the_box(
    kind: Callable[..., Any], low: np.ndarray, high: np.ndarray, side: int
) -> None:
    plan = planner(kind, action_low=low, action_high=high, horizon=3, samples=64)
    task = ClosedTask(lambda obs, act, next_obs: side * (act[..., 0] - float(low[0])))
    for seed in range(10):
        actions = plan(LinearModel(A.float(), B.float()), task, START.float(), seeded(seed))
        assert (actions.numpy() >= low).all()
        assert (actions.numpy() <= high).all()


@pytest.mark.situation("refused")
@every_planner
def test_a_box_without_a_number_of_the_models_type_is_refused(kind: Callable[..., Any]) -> None:
    plan = planner(kind, action_low=np.array([1e6 + 0.01]), action_high=np.array([1e6 + 0.02]))
    with pytest.raises(InputError, match=r"no number of torch\.float32 lies between them"):
        plan(LinearModel(A.float(), B.float()), ClosedTask(quadratic), START.float(), seeded())


@every_planner
def test_the_generator_decides_and_nothing_else(kind: Callable[..., Any]) -> None:
    def plans(seed: int) -> Tensor:
        torch.manual_seed(torch.seed())
        generator, plan = seeded(seed), planner(kind, samples=1000)
        model, task = LinearModel(A, B), ClosedTask(quadratic)
        return torch.stack([plan(model, task, 3 * START, generator) for _ in range(2)])

    assert torch.equal(plans(3), plans(3))
    assert not torch.equal(plans(3), plans(4))


@every_planner
def test_environments_of_a_batch_do_not_mix(kind: Callable[..., Any]) -> None:
    """Other neighbours, same noise: an environment's plan stays what it was, warm start or not."""

    def plans(start: Tensor) -> Tensor:
        generator, plan, obs, steps = seeded(), planner(kind), start, []
        for _ in range(3):
            steps.append(plan(LinearModel(A, B), ClosedTask(quadratic), obs, generator))
            obs = obs @ A.T + steps[-1][:, 0] @ B.T
        return torch.stack(steps)

    together = plans(START)
    for row in range(3):
        others = 3 * torch.randn(3, 2, generator=seeded(row), dtype=torch.float64)
        others[row] = START[row]
        torch.testing.assert_close(plans(others)[:, row], together[:, row])


@every_planner
def test_one_environment_plans_as_well_as_in_a_batch(kind: Callable[..., Any]) -> None:
    """Mean returns of many seeds alone, and of as many rows of one batch."""
    rows, task = 200, ClosedTask(quadratic)
    batch = START[:1].expand(rows, -1)
    plan = planner(kind, samples=32)(LinearModel(A, B), task, batch, seeded())
    together = lq_return(batch, plan)
    alone = torch.cat(
        [
            lq_return(
                START[:1],
                planner(kind, samples=32)(LinearModel(A, B), task, START[:1], seeded(seed)),
            )
            for seed in range(rows)
        ]
    )
    error = ((together.var() + alone.var()) / rows).sqrt()
    assert (together.mean() - alone.mean()).abs() < 4 * error


@every_planner
def test_the_next_call_starts_from_the_plan_shifted(kind: Callable[..., Any]) -> None:
    """Candidates of the second call lie around the first call's plan, a decision later."""
    model, plan = LinearModel(A, B), planner(kind, samples=64)
    first = plan(model, ClosedTask(quadratic), START, seeded())
    model.candidates.clear()
    plan(model, ClosedTask(quadratic), START, seeded(1))
    shifted = torch.cat([first[:, 1:], first[:, -1:]], 1)
    centre = model.candidates[0].mean(1)
    if kind is RandomShooting:
        assert torch.equal(model.candidates[0][:, 0], shifted)
    elif kind is not ICEM:  # whose mean is not the plan it returns; see test_icem.py
        # 64 samples with deviations of at most half the half-width 8: standard errors of 0.5
        assert (centre - shifted).abs().max() < 4 * 0.5
        assert (centre - first.mean()).abs().max() > 1  # and not somewhere else
    plan.reset()
    again = plan(model, ClosedTask(quadratic), START, seeded())
    assert torch.equal(again, first)


@every_planner
def test_decisions_are_held_and_the_next_call_moves_on_by_one(kind: Callable[..., Any]) -> None:
    model = LinearModel(A, B)
    plan = planner(kind, horizon=7, action_repeat=3, samples=32)
    actions = plan(model, ClosedTask(quadratic), START, seeded())
    assert actions.shape == (3, 7, 1)
    assert plan.action_repeat == 3
    for held in (*model.candidates, actions):
        decisions = held[..., ::3, :]
        assert decisions.shape[-2] == 3
        assert torch.equal(held, decisions.repeat_interleave(3, -2)[..., :7, :])
    if kind is RandomShooting:
        model.candidates.clear()
        plan(model, ClosedTask(quadratic), START, seeded(1))
        later = torch.cat([actions[:, 3:], actions[:, -1:].expand(-1, 3, -1)], 1)
        assert torch.equal(model.candidates[0][:, 0], later)


@every_planner
def test_holding_every_decision_still_finds_the_best_constant_force(
    kind: Callable[..., Any],
) -> None:
    """One decision for the whole horizon: a line search, which brute force can do as well."""
    plan = planner(kind, action_repeat=T, samples=2000)
    found = plan(LinearModel(A, B), ClosedTask(quadratic), START, seeded())
    forces = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    best = torch.stack([lq_return(START, force.expand(3, T, 1)) for force in forces]).max(0)
    reached = lq_return(START, found)
    assert (reached > best.values - 0.02 * best.values.abs()).all()


@every_planner
def test_a_model_that_is_never_finite_yields_actions_in_bounds(kind: Callable[..., Any]) -> None:
    plan, model = planner(kind), Poisoned(-math.inf)
    for _ in range(3):
        actions = plan(model, ClosedTask(quadratic), START, seeded())
        assert actions.isfinite().all()
        assert (actions.abs() <= 8).all()
    assert plan.non_finite_sequences == model.hits > 0


@every_planner
def test_futures_that_are_not_finite_are_avoided_and_counted(kind: Callable[..., Any]) -> None:
    plan, model = planner(kind, samples=256), Poisoned(-0.5)
    for _ in range(3):
        actions = plan(model, ClosedTask(quadratic), START, seeded())
        assert actions.isfinite().all()
        assert (actions[:, 0, 0] <= -0.5).all()
    assert plan.non_finite_sequences == model.hits > 0


@every_planner
def test_another_batch_needs_a_reset(kind: Callable[..., Any]) -> None:
    plan, model, task = planner(kind), LinearModel(A, B), ClosedTask(quadratic)
    plan(model, task, START, seeded())
    with pytest.raises(InputError, match="reset"):
        plan(model, task, START[:1], seeded())
    plan.reset()
    assert plan(model, task, START[:1], seeded()).shape == (1, T, 1)


@every_planner
def test_the_smallest_problem(kind: Callable[..., Any]) -> None:
    smallest = {"elites": 1} if kind in (CEM, ICEM) else {}
    plan = planner(kind, horizon=1, samples=1, **smallest)
    assert isinstance(plan, Planner)
    model, task = LinearModel(A, B), ClosedTask(quadratic)
    assert plan(model, task, START[:1], seeded()).shape == (1, 1, 1)


@every_planner
def test_the_scoring_that_is_given_counts(kind: Callable[..., Any]) -> None:
    """One step, whose value lies behind the horizon: the terminal value finds it."""
    one = torch.ones(1, 1, dtype=torch.float64)
    nothing = ClosedTask(lambda obs, act, next_obs: 0 * next_obs[..., 0])
    scoring = Scoring(terminal_value=lambda obs: -(obs[..., 0] - 3).square())
    plan = planner(kind, horizon=1, samples=1000, scoring=scoring)
    found = plan(LinearModel(one, one), nothing, torch.zeros(1, 1).double(), seeded())
    assert found.item() == pytest.approx(3.0, abs=0.5)


SMALL: list[tuple[Callable[..., Any], dict[str, Any]]] = [
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
@pytest.mark.parametrize(("kind", "settings"), SMALL)
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
