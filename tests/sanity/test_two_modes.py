"""Theory T11: the checks of a model with two modes, and what would break them."""

import pytest
import torch

from mbrl_bilevel.objectives.estimators import magic_box
from mbrl_bilevel.sanity import two_modes


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    "checks",
    [two_modes.likelihood_checks, two_modes.squared_error_checks, two_modes.learned_reward_checks],
)
def test_closed_forms(checks):
    assert [c for c in checks() if not c.passed] == []


@pytest.mark.slow
def test_energy_score_by_samples():
    assert [c for c in two_modes.energy_checks(generator()) if not c.passed] == []


def test_half_of_the_distance_to_others_is_the_wrong_gradient(monkeypatch):
    """The check of the sampled gradient fails where the second generation is held fixed."""
    assert two_modes.gradient_deviation(generator(), 300) < 4

    def one_box(p, y, generations):
        box = magic_box(p.log_prob(generations))
        apart = (generations.unsqueeze(1) - generations).abs().sum(1) / (len(box) - 1)
        return (box * ((generations - y).abs() - 0.5 * apart)).mean(0)

    monkeypatch.setattr(two_modes, "sampled_energy_score", one_box)
    assert two_modes.gradient_deviation(generator(), 300) > 4
