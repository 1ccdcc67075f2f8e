"""A policy gradient whose U follows the residuals."""

import pytest
import torch

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.closed_form import ClosedFormPolicyGradient
from mbrl_bilevel.rewards.closed_form import full_rule
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis


@pytest.mark.situation("right")
@pytest.mark.parametrize("n", [3, 40])
def test_targets_that_depend_on_one_another_are_mended_by_the_ridge(n: int) -> None:
    """float32 targets of two independent dimensions: their covariance alone is singular."""
    generator = torch.Generator().manual_seed(0)
    network = GaussianEnsemble(1, n, members=1, hidden=(4,), generator=generator)
    mixing = torch.randn(2, n, generator=generator)
    x = torch.zeros(500, 1)
    y = network(x).mean[0, 0].detach() + torch.randn(500, 2, generator=generator) @ mixing
    objective = ClosedFormPolicyGradient(Mahalanobis(n, form="full"), full_rule)
    objective.calibrate(network, x, y)
    # All other directions hold the ridge alone, 1e-6 of the mean variance.
    ridge = 1e-6 * (network(x).mean - y).square().mean().item()
    largest = torch.linalg.eigvalsh(objective.reward.precision().double())[2:]
    expected = torch.full_like(largest, 0.5 / ridge)
    torch.testing.assert_close(largest, expected, rtol=0.05, atol=0)
