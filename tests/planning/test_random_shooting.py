from typing import Any

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.random_shooting import RandomShooting
from mbrl_bilevel.planning.score import Scoring
from tests.planning.toy_problems import (
    START,
    A,
    B,
    ClosedTask,
    LinearModel,
    Recorded,
    lq_return,
    quadratic,
)

T = 6


def planner(**changes: Any) -> RandomShooting:
    return RandomShooting(**{"action_low": [-8.0], "action_high": [8.0], "horizon": T, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_disagreement_is_asked_of_the_model() -> None:
    plan = planner(horizon=1, scoring=Scoring(disagreement=1.0))
    model = Recorded(torch.zeros(1, 1, 129, 2, 1), torch.zeros(1, 1, 129, 1))
    with pytest.raises(InputError, match="disagreement"):
        plan(model, ClosedTask(), torch.zeros(1, 1), seeded())


def test_random_shooting_takes_the_best_of_its_candidates() -> None:
    model, plan = LinearModel(A, B), planner(samples=50)
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
    plan = planner(samples=20_000, action_low=[-1.0], action_high=[3.0])
    plan(model, ClosedTask(quadratic), START[:1], seeded())
    drawn = model.candidates[0][0, 1:]
    for p in (0.1, 0.5, 0.9):
        # standard error of a share at each of T steps: (p (1 - p) / n)^1/2 <= 0.0036; five of them
        share = (drawn <= -1 + 4 * p).double().mean(0)
        assert ((share - p).abs() < 5 * 0.0036).all()
