"""Theory T11: the checks of a model with two modes, and what would break them."""

import pytest
import torch

from mbrl_bilevel.sanity import two_modes
from mbrl_bilevel.sanity.mixture import sample
from mbrl_bilevel.sanity.two_modes import START, TRUTH, sampled_energy_score


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


def test_one_magic_box_for_a_pair_is_half_of_the_gradient(monkeypatch):
    """The check of the sampled gradient fails where the second generation is held fixed."""
    assert two_modes.gradient_deviation(generator(), 300) < 4

    def one_box(p, y, generations):
        box = two_modes.magic_box(two_modes.log_prob(p, generations))
        apart = (generations.unsqueeze(1) - generations).abs().sum(1) / (len(box) - 1)
        to_truth = (generations.unsqueeze(1) - y).abs().mean(1)
        return (box * (to_truth - 0.5 * apart)).mean()

    monkeypatch.setattr(two_modes, "sampled_energy_score", one_box)
    assert two_modes.gradient_deviation(generator(), 300) > 4


def test_sampled_energy_score_is_the_mean_over_pairs():
    y, generations = (sample(p, 7, generator()) for p in (TRUTH, START))
    slow = sum(abs(a - b) / 49 for a in generations.tolist() for b in y.tolist()) - 0.5 * sum(
        abs(a - b) / 42 for a in generations.tolist() for b in generations.tolist()
    )
    value = sampled_energy_score(START, y, generations)
    assert float(value) == pytest.approx(slow)
