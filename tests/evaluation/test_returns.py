import math
import statistics

import numpy as np
import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.returns import ReturnSummary

RETURNS = [100.0, 250.0, 160.0, 90.0]


def test_figures_match_the_standard_library() -> None:
    figures = ReturnSummary(RETURNS, (10.0, 110.0)).figures()
    assert figures["mean_return"] == pytest.approx(statistics.mean(RETURNS))
    assert figures["std_return"] == pytest.approx(statistics.pstdev(RETURNS))
    assert figures["standard_error"] == pytest.approx(statistics.stdev(RETURNS) / 2)
    assert figures["normalized_score"] == pytest.approx(140.0)  # mean 150 on 10 ... 110
    assert figures["returns"] == RETURNS


def test_the_references_themselves_score_0_and_100() -> None:
    hopper = (-20.272305, 3234.3)
    assert ReturnSummary([hopper[0]], hopper).normalized_score == pytest.approx(0)
    assert ReturnSummary([hopper[1]], hopper).normalized_score == pytest.approx(100)


def test_the_standard_error_is_that_of_the_mean() -> None:
    """Over 2,000 sets of 8 normal returns its square averages to the variance of their mean."""
    sets = np.random.default_rng(0).normal(5.0, 3.0, (2000, 8))
    squares = [ReturnSummary(list(row)).standard_error ** 2 for row in sets]  # type: ignore[operator]
    # The relative error of a mean of 2,000 such squares is (2 / 7 / 2000)^1/2 = 0.012.
    assert np.mean(squares) == pytest.approx(9 / 8, rel=4 * 0.012)


def test_one_episode_has_no_standard_error_and_no_score_without_references() -> None:
    summary = ReturnSummary([3.0])
    assert summary.figures() == {
        "mean_return": 3.0,
        "std_return": 0.0,
        "standard_error": None,
        "normalized_score": None,
        "returns": [3.0],
    }
    assert "no reference scores" in summary.table()
    assert "±" not in summary.table()


def test_the_table_holds_the_figures() -> None:
    table = ReturnSummary(RETURNS, (10.0, 110.0)).table()
    for words in ("150.0 ± 36.7 (standard error)", "140.0", "90.0, 250.0"):
        assert words in table


@pytest.mark.parametrize(
    ("returns", "references", "words"),
    [([], None, "at least 1"), ([math.nan], None, "finite"), ([1.0], (2.0, 2.0), "differ")],
)
def test_bad_returns(
    returns: list[float], references: tuple[float, float] | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        ReturnSummary(returns, references)
