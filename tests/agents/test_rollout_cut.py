"""The divergence is that of its definition; rollouts end where it passes the threshold."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mbrl_bilevel.agents.rollout_cut import RolloutCut, jensen_shannon
from mbrl_bilevel.agents.setting_groups import RolloutSettings
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_divergence_is_the_mean_of_pairs_by_kullback_leibler():
    """Half the divergence of each of two members from their normalised geometric mean."""
    mean = torch.randn(3, 4, 2, generator=seeded(), dtype=torch.float64)
    std = torch.rand(3, 4, 2, generator=seeded(1), dtype=torch.float64) + 0.1
    expected = torch.zeros(4, dtype=torch.float64)
    pairs = [(0, 1), (0, 2), (1, 2)]
    for i, j in pairs:
        precision = (std[i] ** -2 + std[j] ** -2) / 2
        middle = (mean[i] / std[i] ** 2 + mean[j] / std[j] ** 2) / 2 / precision
        between = Normal(middle, precision**-0.5)
        for k in (i, j):
            expected += kl_divergence(Normal(mean[k], std[k]), between).sum(-1) / 2
    torch.testing.assert_close(jensen_shannon(mean, std), expected / len(pairs))


def test_members_that_agree_do_not_differ():
    mean, std = torch.randn(1, 5, 3).expand(4, 5, 3), torch.full((4, 5, 3), 0.3)
    torch.testing.assert_close(jensen_shannon(mean, std), torch.zeros(5), rtol=0, atol=1e-5)


def fan(std=1.0):
    """Two members that predict x and -x: with deviation 1 they differ by x^2 / 2."""
    model = DynamicsModel(
        1, 1, ModelSettings(members=2, hidden=()), env_id="Line-v0", log_std_bounds=(-30.0, 20.0)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        layer = model.network.network.linear_layers()[-1]
        layer.weight[:, 0, 0] = torch.tensor([1.0, -1.0])
        layer.bias[:, :, 1] = math.log(std)
    return model


def column(*values):
    return torch.tensor(values).unsqueeze(-1)


def test_a_rollout_that_was_cut_stays_cut_until_another_takes_its_place():
    cut = RolloutCut(fan(), quantile=0.5, scale=1.0, count=3)
    still = torch.zeros(3, 1)
    assert cut.counts(column(1.0, 2.0, 3.0), still).tolist() == [True, True, False]
    assert cut.threshold.item() == pytest.approx(2.0, rel=1e-4)  # the median: of x = 2
    assert cut.counts(column(1.0, 2.1, 0.0), still).tolist() == [True, False, False]
    cut.begin_again(torch.tensor([False, False, True]))
    assert cut.counts(column(0.0, 0.0, 1.5), still).tolist() == [True, False, True]


def test_the_scale_multiplies_the_threshold():
    cut = RolloutCut(fan(), quantile=1.0, scale=0.25, count=2)
    # Of x = 2 the divergence is 2, of x = 1 a fourth of that: at the threshold, which counts.
    assert cut.counts(column(0.99, 2.0), torch.zeros(2, 1)).tolist() == [True, False]
    assert cut.threshold.item() == pytest.approx(0.5, rel=1e-4)


def test_the_least_uncertain_first_step_counts_whatever_the_scale():
    """A round without any step would leave critics nothing to learn from."""
    cut = RolloutCut(fan(), quantile=0.5, scale=1e-9, count=3)
    still = torch.zeros(3, 1)
    assert cut.counts(column(2.0, 1.0, 3.0), still).tolist() == [False, True, False]
    assert cut.counts(column(2.0, 1.01, 3.0), still).tolist() == [False, False, False]


@pytest.mark.situation("refused")
def test_targets_along_a_rollout_need_all_of_its_steps():
    with pytest.raises(InputError, match=r"--rollout-cut of --multi-step.*--multi-step False"):
        RolloutSettings(rollout_cut="disagreement", multi_step=True)
