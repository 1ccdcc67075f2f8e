import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.returns import (
    ReturnSummary,
    Statistic,
    difference,
    estimate,
    interquartile_mean,
    probability_of_improvement,
)

RETURNS = [100.0, 250.0, 160.0, 90.0]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def width(interval: tuple[float, float] | None) -> float:
    assert interval is not None
    return interval[1] - interval[0]


def test_figures_match_the_standard_library() -> None:
    figures = ReturnSummary(RETURNS, (10.0, 110.0)).metrics()
    assert figures["mean_return"] == pytest.approx(statistics.mean(RETURNS))
    assert figures["std_return"] == pytest.approx(statistics.pstdev(RETURNS))
    assert figures["standard_error"] == pytest.approx(statistics.stdev(RETURNS) / 2)
    assert figures["normalized_score"] == pytest.approx(140.0)  # mean 150 on 10 ... 110
    assert figures["iqm"] == pytest.approx(130.0)  # of 100 and 160
    assert figures["returns"] == RETURNS


def test_the_references_themselves_score_0_and_100() -> None:
    hopper = (-20.272305, 3234.3)
    assert ReturnSummary([hopper[0]], hopper).normalized_score == pytest.approx(0)
    assert ReturnSummary([hopper[1]], hopper).normalized_score == pytest.approx(100)


def test_the_standard_error_is_that_of_the_mean() -> None:
    """Over 2,000 sets of 8 normal returns its square averages to the variance of their mean."""
    sets = rng().normal(5.0, 3.0, (2000, 8))
    squares = [ReturnSummary(list(row)).standard_error ** 2 for row in sets]  # type: ignore[operator]
    # The relative error of a mean of 2,000 such squares is (2 / 7 / 2000)^1/2 = 0.012.
    assert np.mean(squares) == pytest.approx(9 / 8, rel=4 * 0.012)


def test_one_episode_has_no_interval_and_no_score_without_references() -> None:
    assert ReturnSummary([3.0]).metrics() == {
        "mean_return": 3.0,
        "std_return": 0.0,
        "standard_error": None,
        "interval": None,
        "iqm": 3.0,
        "iqm_interval": None,
        "normalized_score": None,
        "returns": [3.0],
    }


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 17])
def test_the_interquartile_mean_is_that_of_the_sorted_middle(n: int) -> None:
    returns = rng(n).normal(size=n)
    middle = sorted(returns)[n // 4 : n - n // 4]
    assert interquartile_mean(returns) == pytest.approx(statistics.mean(middle))


@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_the_interval_is_that_of_a_plain_bootstrap(statistic: Statistic) -> None:
    """Against a loop over resamples of three strata; of 4,000 each, a quantile errs by 2 %."""
    strata = [rng(i).normal(10 * i, 1 + i, 6 + i) for i in range(3)]
    found = estimate(strata, statistic, generator=rng(), resamples=4000)
    draws, generator = [], rng(1)
    for _ in range(4000):
        pool = sorted(x for s in strata for x in generator.choice(s, len(s)))
        cut = len(pool) // 4 if statistic == "iqm" else 0
        draws.append(statistics.mean(pool[cut : len(pool) - cut]))
    assert found.interval == pytest.approx(
        tuple(np.quantile(draws, (0.025, 0.975))), abs=0.06 * float(np.std(draws) * 4)
    )


def test_strata_keep_their_shares() -> None:
    """What differs between strata is no uncertainty: 1.96 standard errors within them remain."""
    strata = [rng(i).normal(100.0 * i, 1.0, 400) for i in range(2)]
    found = estimate(strata, generator=rng())
    error = math.sqrt(sum(np.var(s) for s in strata) / 4 / 400)
    # The two quantiles of 10,000 draws have relative errors of about 1 %.
    assert width(found.interval) == pytest.approx(2 * 1.96 * error, rel=0.05)
    pooled = estimate([np.concatenate(strata)], generator=rng())
    assert width(pooled.interval) > 20 * width(found.interval)


def test_the_interval_covers_the_truth_as_often_as_the_docstring_says() -> None:
    """85 % of the intervals of 5 normal returns; 4 standard errors of a share over 400 are 7 %."""
    held = 0
    for seed in range(400):
        found = estimate([rng(seed).normal(size=5)], generator=rng(seed), resamples=500)
        assert found.interval is not None
        held += found.interval[0] <= 0 <= found.interval[1]
    assert held / 400 == pytest.approx(0.85, abs=0.07)


def test_a_paired_difference_of_means_is_the_mean_of_differences() -> None:
    first, noise = rng(0).normal(0, 50, 30), rng(1).normal(3, 1, 30)
    found = difference([first], [first + noise], paired=True, generator=rng())
    alone = estimate([noise], generator=rng())
    assert found.value == pytest.approx(noise.mean())
    assert found.interval == pytest.approx(alone.interval)
    apart = difference([first], [first + noise], paired=False, generator=rng())
    assert apart.value == pytest.approx(found.value)
    expected = math.sqrt(first.var() + (first + noise).var()) / math.sqrt(30)
    assert width(apart.interval) == pytest.approx(2 * 1.96 * expected, rel=0.05)


def test_pairs_stay_pairs_in_every_stratum_and_statistic() -> None:
    """A constant gain has no uncertainty where starts are shared, whatever the statistic."""
    strata = [rng(0).normal(size=9), rng(1).normal(5, 2, size=4)]
    for statistic in ("mean", "iqm"):
        found = difference(strata, [s + 2 for s in strata], statistic, paired=True, generator=rng())
        assert found.value == pytest.approx(2)
        assert found.interval == pytest.approx((2, 2))


def test_unpaired_agents_may_have_different_numbers_of_episodes() -> None:
    first, second = rng(0).normal(size=200), rng(1).normal(4, 2, size=300)
    found = difference([first], [second], paired=False, generator=rng())
    assert found.interval is not None
    welch = stats.ttest_ind(second, first, equal_var=False).confidence_interval()
    # 10,000 resamples place a bound of a normal to about 0.03 standard errors.
    error = (welch.high - welch.low) / 2 / 1.96
    assert found.interval == pytest.approx((welch.low, welch.high), abs=0.15 * error)


def test_the_same_generator_gives_the_same_interval_and_another_another() -> None:
    first, again, other = (estimate([RETURNS], generator=rng(s)) for s in (0, 0, 1))
    assert first == again
    long = rng(5).normal(size=50)
    assert estimate([long], generator=rng(0)) != estimate([long], generator=rng(1))
    assert other.value == first.value


def test_equal_returns_have_an_interval_of_no_width() -> None:
    assert ReturnSummary([1000.0] * 5).estimate("iqm") == (1000.0, (1000.0, 1000.0))


@pytest.mark.parametrize(
    ("returns", "references", "words"),
    [([], None, "at least 1"), ([math.nan], None, "finite"), ([1.0], (2.0, 2.0), "differ")],
)
def test_bad_returns(
    returns: list[float], references: tuple[float, float] | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        ReturnSummary(returns, references)


def test_bad_strata() -> None:
    for strata in ([], [[1.0], []]):
        with pytest.raises(InputError, match="at least 1"):
            estimate(strata, generator=rng())
    with pytest.raises(InputError, match=r"paired returns of \[2\] and \[3\]"):
        difference([[1.0, 2.0]], [[1.0, 2.0, 3.0]], paired=True, generator=rng())


def test_the_probability_of_improvement_counts_pairs_and_halves_ties() -> None:
    """Over two strata of different sizes, in the order of the definition."""
    first, second = [[1.0, 5.0, 3.0], [2.0, 2.0]], [[3.0, 4.0], [2.0, 1.0, 7.0]]
    shares = [
        statistics.mean((b > a) + (a == b) / 2 for a in low for b in high)
        for low, high in zip(first, second, strict=True)
    ]
    found = probability_of_improvement(first, second, generator=rng())
    assert found.value == pytest.approx(statistics.mean(shares))
    assert probability_of_improvement(second, first, generator=rng()).value == pytest.approx(
        1 - found.value
    )


def test_the_interval_of_the_probability_is_that_of_resampled_seeds() -> None:
    """All resamples of 2 and 2 values, 4 of each: the probability is 0 in 1 of 16, else above."""
    low, high = [[1.0, 3.0]], [[2.0, 4.0]]
    exact = [
        statistics.mean(b > a for a in lows for b in highs)
        for lows in itertools.product(low[0], repeat=2)
        for highs in itertools.product(high[0], repeat=2)
    ]
    value, interval = probability_of_improvement(low, high, generator=rng(), confidence=0.8)
    assert value == pytest.approx(0.75)
    # 10 and 90 % of the 16 equally likely values: 0 has 1/16 < 10 %, 1 has 9/16.
    assert interval == pytest.approx(tuple(np.quantile(exact, [0.1, 0.9], method="inverted_cdf")))


def test_the_probability_has_no_interval_for_one_seed_and_needs_the_same_strata() -> None:
    assert probability_of_improvement([[1.0]], [[2.0, 3.0]], generator=rng()) == (1.0, None)
    with pytest.raises(InputError, match="1 and 2 strata"):
        probability_of_improvement([[1.0]], [[2.0], [3.0]], generator=rng())
