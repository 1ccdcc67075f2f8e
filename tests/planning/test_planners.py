"""What every planner must do, in worlds whose best plans are known."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.cem import CEM, truncated_normal
from mbrl_bilevel.planning.icem import ICEM
from mbrl_bilevel.planning.mppi import MPPI, weights
from mbrl_bilevel.planning.random_shooting import RandomShooting
from mbrl_bilevel.planning.score import Scoring
from mbrl_bilevel.protocols import Planner
from tests.planning.closed_worlds import (
    START,
    A,
    B,
    ClosedTask,
    LinearModel,
    Poisoned,
    Recorded,
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
    """With a world that pays nothing but for closeness to the shifted plan, it is found again."""
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
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"horizon": 0}, "horizon 0"),
        ({"samples": 0}, "samples 0"),
        ({"action_repeat": 0}, "action_repeat 0"),
        ({"action_high": [math.inf]}, "finite bounds"),
    ],
)
def test_bad_settings(kind: Callable[..., Any], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        planner(kind, **changes)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (CEM, {"iterations": 0}, "iterations 0"),
        (CEM, {"elites": 129}, "only 128 samples"),
        (CEM, {"init_std": math.nan}, "init_std nan"),
        (MPPI, {"iterations": 0}, "iterations 0"),
        (MPPI, {"temperature": 0.0}, "temperature 0"),
        (MPPI, {"beta": -1.0}, "beta -1"),
    ],
)
def test_bad_settings_of_their_own(
    kind: Callable[..., Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        planner(kind, **changes)


@every_planner
def test_the_smallest_problem(kind: Callable[..., Any]) -> None:
    smallest = {"elites": 1} if kind in (CEM, ICEM) else {}
    plan = planner(kind, horizon=1, samples=1, **smallest)
    assert isinstance(plan, Planner)
    model, task = LinearModel(A, B), ClosedTask(quadratic)
    assert plan(model, task, START[:1], seeded()).shape == (1, 1, 1)


@every_planner
def test_the_scoring_that_is_given_counts(kind: Callable[..., Any]) -> None:
    """Worlds of one step whose value lies behind the horizon: the terminal value finds it."""
    one = torch.ones(1, 1, dtype=torch.float64)
    nothing = ClosedTask(lambda obs, act, next_obs: 0 * next_obs[..., 0])
    scoring = Scoring(terminal_value=lambda obs: -(obs[..., 0] - 3).square())
    plan = planner(kind, horizon=1, samples=1000, scoring=scoring)
    found = plan(LinearModel(one, one), nothing, torch.zeros(1, 1).double(), seeded())
    assert found.item() == pytest.approx(3.0, abs=0.5)


def test_disagreement_is_asked_of_the_model() -> None:
    plan = planner(RandomShooting, horizon=1, scoring=Scoring(disagreement=1.0))
    model = Recorded(torch.zeros(1, 1, 129, 2, 1), torch.zeros(1, 1, 129, 1))
    with pytest.raises(InputError, match="disagreement"):
        plan(model, ClosedTask(), torch.zeros(1, 1), seeded())


def test_random_shooting_takes_the_best_of_its_candidates() -> None:
    model, plan = LinearModel(A, B), planner(RandomShooting, samples=50)
    for _ in range(2):
        found = plan(model, ClosedTask(quadratic), 3 * START, seeded())
        candidates = model.candidates[-1]
        assert candidates.shape == (3, 51, T, 1)
        for b in range(3):
            row = 3 * START[b : b + 1]
            worth = [float(lq_return(row, candidates[b, n : n + 1])) for n in range(51)]
            assert torch.equal(found[b], candidates[b, worth.index(max(worth))])


def test_random_shooting_draws_uniformly_from_the_box() -> None:
    model = LinearModel(A, B)
    plan = planner(RandomShooting, samples=20_000, action_low=[-1.0], action_high=[3.0])
    plan(model, ClosedTask(quadratic), START[:1], seeded())
    drawn = model.candidates[0][0, 1:]
    for p in (0.1, 0.5, 0.9):
        # standard error of a share at each of T steps: (p (1 - p) / n)^1/2 <= 0.0036; five of them
        share = (drawn <= -1 + 4 * p).double().mean(0)
        assert ((share - p).abs() < 5 * 0.0036).all()


def test_one_iteration_of_cem_is_the_slow_one() -> None:
    """Sorting and averaging in loops over environments, steps and elites."""
    model = LinearModel(A, B)
    plan = planner(CEM, iterations=1, samples=40, elites=6, momentum=0.25)
    found = plan(model, ClosedTask(quadratic), START, seeded())
    (candidates,) = model.candidates
    for b in range(3):
        worth = [float(lq_return(START[b : b + 1], candidates[b, n : n + 1])) for n in range(40)]
        elite = sorted(range(40), key=lambda n: -worth[n])[:6]
        for t in range(T):
            mean = sum(float(candidates[b, n, t, 0]) for n in elite) / 6
            assert float(found[b, t, 0]) == pytest.approx(0.25 * 0.0 + 0.75 * mean)


def test_the_second_iteration_of_cem_samples_from_the_refitted_gaussian() -> None:
    """Its candidates' mean and deviation are those of the elites, narrowed by truncation."""
    model = LinearModel(A, B)
    plan = planner(CEM, iterations=2, samples=20_000, elites=50, momentum=0.2, horizon=2)
    plan(model, ClosedTask(quadratic), START[:1], seeded())
    first, second = (candidates[0, ..., 0] for candidates in model.candidates)
    worth = lq_return(START[:1].expand(20_000, -1), first.unsqueeze(-1))
    elite = first[worth.topk(50).indices]
    mean = 0.8 * elite.mean(0)
    std = 0.2 * 4.0 + 0.8 * elite.std(0, correction=0)
    assert (std < (8 - mean.abs()) / 2).all()  # the bounds are too far away to narrow it further
    # variance of a standard normal within 2 deviations: 1 - 4 pdf(2) / (cdf(2) - cdf(-2))
    narrow = (1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(2**0.5)) ** 0.5
    assert ((second.mean(0) - mean).abs() < 5 * std / 20_000**0.5).all()
    assert ((second.std(0) / (narrow * std) - 1).abs() < 5 * (0.5 / 20_000) ** 0.5).all()


def test_deviations_of_cem_are_at_most_a_quarter_of_the_box() -> None:
    """However large the first one is: from mid-box nothing piles up at the bounds."""
    model, plan = LinearModel(A, B), planner(CEM, samples=5000, init_std=5.0)
    plan(model, ClosedTask(quadratic), START, seeded())
    sample = model.candidates[0]
    assert sample.abs().max() <= 8
    assert (sample.abs() > 7.9).double().mean() < 0.01


def test_truncated_normal_noise_has_the_law_of_the_rejected() -> None:
    noise = truncated_normal((200_000,), seeded(), dtype=torch.float64)
    plain = torch.randn(400_000, generator=seeded(1), dtype=torch.float64)
    plain = plain[plain.abs() <= 2]
    assert noise.abs().max() <= 2
    for p in (0.05, 0.25, 0.5, 0.75, 0.95):
        # standard error of a share: (p (1 - p) / n)^1/2 < 0.0012; five of them
        share = (noise <= plain.quantile(p)).double().mean()
        assert float(share) == pytest.approx(p, abs=5 * 0.0016)


@pytest.mark.parametrize("temperature", [0.05, 0.3, 2.0])
def test_the_weights_of_mppi_are_the_slow_ones(temperature: float) -> None:
    returns = 1e3 + 7 * torch.randn(3, 9, generator=seeded(), dtype=torch.float64)
    returns[0, 2] = returns[0, 5] = -math.inf
    returns[2] = -math.inf
    found = weights(returns, temperature)
    for b in range(3):
        finite = [float(r) for r in returns[b] if math.isfinite(r)]
        if not finite:
            assert found[b].tolist() == [0.0] * 9
            continue
        mean = sum(finite) / len(finite)
        lam = temperature * math.sqrt(sum((r - mean) ** 2 for r in finite) / len(finite))
        powers = [math.exp((float(r) - max(finite)) / lam) for r in returns[b]]
        expected = [power / sum(powers) for power in powers]
        assert found[b].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_equal_returns_weigh_the_same() -> None:
    assert weights(torch.full((1, 4), 30.0), 0.3).tolist() == [[0.25] * 4]


def test_one_iteration_of_mppi_is_the_weighted_mean() -> None:
    model, plan = LinearModel(A, B), planner(MPPI, iterations=1, samples=40, temperature=0.5)
    found = plan(model, ClosedTask(quadratic), START, seeded())
    (candidates,) = model.candidates
    for b in range(3):
        worth = torch.cat(
            [lq_return(START[b : b + 1], candidates[b, n : n + 1]) for n in range(40)]
        )
        power = torch.exp((worth - worth.max()) / (0.5 * worth.std(correction=0)))
        expected = sum(power[n] * candidates[b, n] for n in range(40)) / power.sum()
        torch.testing.assert_close(found[b], expected)
