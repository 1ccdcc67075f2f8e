"""Theory T7 on whole populations."""

import math

import pytest
import torch

from mbrl_bilevel.rewards.closed_form import optimal_logits
from mbrl_bilevel.sanity.tabular_population import (
    entropy,
    example_checks,
    learn,
    misspecification_checks,
    population,
    right_precision,
)


def test_a_population_has_its_rates():
    data = population((0.22, 0.7))
    assert (data.x.mT @ data.y.double() / 100).tolist() == [0.22, 0.7]
    assert entropy((0.5, 0.5)) == pytest.approx(math.log(2))


def test_the_right_input_dependent_reward_holds_any_frequencies():
    q = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.09, 0.01]], dtype=torch.float64)
    torch.testing.assert_close(optimal_logits(right_precision(q), q, 1.0).softmax(-1), q)


def test_the_example_and_what_a_global_reward_cannot_hold():
    checks = [*example_checks(), *misspecification_checks()]
    assert [c for c in checks if not c.passed] == []
    by_name = {c.name: c for c in checks}
    # a global U leaves something: the check against the direct optimum is not one of zeros
    assert by_name["NLL above the entropy, best global full U"].expected > 1e-3


def test_the_learned_b_matches_the_log_odds_at_another_rate():
    q = 0.35
    b = math.log((1 - q) / q) / (2 * (1 - 2 * q))
    assert learn((q,), "scalar").precision[0, 0, 0].item() == pytest.approx(b, rel=1e-6)
