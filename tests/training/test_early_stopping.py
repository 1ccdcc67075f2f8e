"""When a fit stops: the paired test of progress against scipy's, and its state."""

import pytest
import torch
from scipy import stats

from mbrl_bilevel.training.early_stopping import PairedTest


def scores(mean=0.0, count=200, seed=0):
    return mean + torch.randn(count, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("level", [0.5, 0.2, 0.01])
@pytest.mark.parametrize("gain", [-0.3, -0.02, 0.02, 0.1, 0.2, 0.5])
def test_progress_is_what_a_paired_one_sided_test_finds(level, gain):
    """scipy's paired t statistic, brought to the deviation of the whole and to a normal tail."""
    before, after = scores(), scores(-gain, seed=1)
    test = PairedTest(level)
    test.update(before)
    test.update(after)
    t = stats.ttest_rel(before.numpy(), after.numpy()).statistic
    p = stats.norm.sf(t * (len(before) / (len(before) - 1)) ** 0.5)
    assert (test.stale == 0) == (p < level)


def test_rows_are_compared_with_themselves():
    """A gain of .01 in every row counts, though rows differ by a hundred times that."""
    test = PairedTest(1e-6)
    test.update(scores())
    test.update(scores() - 0.01)
    assert test.stale == 0


@pytest.mark.parametrize(("level", "deviations"), [(1e-17, 8.4938), (1e-300, 37.0471)])
def test_any_level_above_0_is_a_level(level, deviations):
    """1 - level is 1 in float64; the quantiles are those of scipy.stats.norm.isf."""
    assert PairedTest(level).threshold == pytest.approx(stats.norm.isf(level))
    assert PairedTest(level).threshold == pytest.approx(deviations, abs=1e-4)


def test_evaluations_are_compared_with_the_last_that_was_progress():
    """Each is a little worse than the one before, or the same: small losses do not add up."""
    test = PairedTest(0.5)
    for mean, stale in [(1.0, 0), (0.5, 0), (0.6, 1), (0.55, 2), (0.5, 3), (0.49, 0), (0.49, 1)]:
        test.update(scores(mean))
        assert test.stale == stale


def test_scores_that_are_not_finite_are_no_progress():
    test = PairedTest(0.5)
    test.update(scores())
    test.update(torch.full((200,), torch.nan))
    assert test.stale == 1


def test_its_state_leads_to_the_same_decisions():
    first, second = PairedTest(0.5), PairedTest(0.5)
    second.load_state(first.state())
    assert (second.stale, second.reference) == (0, None)
    first.update(scores(1.0))
    first.update(scores(1.1))
    second.load_state(first.state())
    for test in (first, second):
        test.update(scores(1.05))
        assert test.stale == 2
