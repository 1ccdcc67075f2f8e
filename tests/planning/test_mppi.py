import math
from typing import Any

import pytest
import torch

from mbrl_bilevel.planning.mppi import MPPI, weights
from tests.planning.toy_problems import START, A, B, ClosedTask, LinearModel, lq_return, quadratic

T = 6


def planner(**changes: Any) -> MPPI:
    return MPPI(**{"action_low": [-8.0], "action_high": [8.0], "horizon": T, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    model, plan = LinearModel(A, B), planner(iterations=1, samples=40, temperature=0.5)
    found = plan(model, ClosedTask(quadratic), START, seeded())
    (candidates,) = model.candidates
    for b in range(3):
        worth = torch.cat(
            [lq_return(START[b : b + 1], candidates[b, n : n + 1]) for n in range(40)]
        )
        power = torch.exp((worth - worth.max()) / (0.5 * worth.std(correction=0)))
        expected = sum(power[n] * candidates[b, n] for n in range(40)) / power.sum()
        torch.testing.assert_close(found[b], expected)
