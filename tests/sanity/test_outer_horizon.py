"""The toy of two horizons: its closed forms against grids, and what its checks would find out."""

import pytest
import torch

from mbrl_bilevel.sanity import outer_horizon
from mbrl_bilevel.sanity.outer_horizon import STARTS, best, draw, horizon_checks, problem


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_best_parameter_is_that_of_a_fine_grid(steps):
    paths = draw(STARTS, seeded())
    grid = torch.linspace(0.5, 2.0, 1501).double()
    errors = [problem(steps).outer({"a": a.reshape(1)}, {}, paths).item() for a in grid]
    at = grid[torch.tensor(errors).argmin()].item()
    assert best(paths, steps) == pytest.approx(at, abs=6e-4)  # half a step of the grid


def test_every_check_passes():
    assert [c.name for c in horizon_checks(seeded()) if not c.passed] == []


def test_weights_learned_by_one_step_fail_the_checks_of_two(monkeypatch):
    learned = outer_horizon.learned
    monkeypatch.setattr(outer_horizon, "learned", lambda i, o, steps: learned(i, o, 1))
    failed = [c.name for c in horizon_checks(seeded()) if not c.passed]
    assert "a learned by the error of two steps" in failed
    assert "error of two steps, learned by two or by one (at most)" in failed
