"""The table of models says which is best, and only where that can be said."""

from mbrl_bilevel.evaluation.mismatch import Correlation
from mbrl_bilevel.evaluation.model_table import Row, correlation_table, rows, table

METRICS = {
    "rmse": 0.5,
    "nll": -1.0,
    "r2": 0.9,
    "ece": 0.02,
    "member_ece": 0.02,
    "sharpness": 0.4,
    "k_step": {"1": 0.1, "10": 0.7},
    "k_step_linear": None,
    "k_step_persistence": {"1": 0.3, "10": 1.0},
    "k_step_coverage": {"50": {"1": 0.6, "10": 0.5}, "90": {"1": 0.8, "10": 0.99}},
}


def stars(text):
    """Label of each row, and in which columns a star stands."""
    return {
        line[:22].strip(): [cell.endswith("*") for cell in line[22:].split()]
        for line in text.splitlines()[1:]
    }


def test_the_best_of_each_row_is_marked():
    other = METRICS | {
        "rmse": 0.6,
        "nll": -2.0,
        "r2": 0.8,
        "k_step_coverage": {"50": {"1": 0.55, "10": 0.4}, "90": {"1": 0.97, "10": 0.5}},
    }
    marked = stars(table(["a", "b"], rows([METRICS, other]), mark=True))
    assert marked["RMSE, one step"] == [True, False]
    assert marked["NLL per dimension"] == [False, True]
    assert marked["R2"] == [True, False]
    assert marked["calibration error"] == [True, True]
    assert marked["of persistence"] == [False, False]
    text = table(["a", "b"], rows([METRICS, other]), mark=True)
    after = text[text.index("after 1 step") :].splitlines()
    assert after[2].split()[-2:] == ["0.6000", "0.5500*"]  # nearer to 0.5
    assert after[3].split()[-2:] == ["0.8000", "0.9700*"]  # nearer to 0.9
    assert "*" not in table(["a", "b"], rows([METRICS, other]), mark=False)
    assert "linear" not in text  # no model has that baseline


def test_a_missing_metric_is_a_dash_and_never_the_best():
    text = table(["a", "b"], [Row("RMSE", [None, 2.0], "smallest")], mark=True)
    assert text.splitlines()[1].split() == ["RMSE", "-", "2.0000*"]


def test_horizons_stand_in_order():
    labels = [row.label for row in rows([METRICS]) if row.label.startswith("RMSE after")]
    assert labels == ["RMSE after 1 step", "RMSE after 10 steps"]


def test_correlations_show_their_interval_and_say_where_there_is_none():
    text = correlation_table(
        [
            Correlation("nll", 4, -0.8, (-1.0, 0.25), -0.7, None),
            Correlation("ece", 4, float("nan"), None, float("nan"), None),
        ]
    )
    assert "-0.80  [-1.00, +0.25]" in text
    assert text.splitlines()[2].split() == ["ece", "undefined", "undefined"]
