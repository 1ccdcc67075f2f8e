import math
from typing import Any

import pytest
import torch

from mbrl_bilevel.planning.cem import CEM, truncated_normal
from tests.planning.toy_problems import START, A, B, ClosedTask, LinearModel, lq_return, quadratic

T = 6


def planner(**changes: Any) -> CEM:
    return CEM(**{"action_low": [-8.0], "action_high": [8.0], "horizon": T, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_one_iteration_of_cem_is_the_slow_one() -> None:
    """Sorting and averaging in loops over environments, steps and elites."""
    model = LinearModel(A, B)
    plan = planner(iterations=1, samples=40, elites=6, momentum=0.25)
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
    plan = planner(iterations=2, samples=20_000, elites=50, momentum=0.2, horizon=2)
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
    model, plan = LinearModel(A, B), planner(samples=5000, init_std=5.0)
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
