"""Headline metrics: where they stand in the JSON of each command."""

from mbrl_bilevel.scripts.sweeps.headlines import FIRST, HEADLINES, LIVE, headlines, summary
from mbrl_bilevel.scripts.sweeps.trial import COMMANDS, TRAININGS


def test_metrics_are_found_by_their_place_and_missing_ones_are_none():
    found = headlines("train-model", {"test": {"nll": 0.5}, "steps": 3, "held_out_nll": None})
    assert (found["test_nll"], found["steps_taken"]) == (0.5, 3)
    assert found["held_out_nll"] is None
    assert found["test_rmse"] is None
    assert headlines("eval-model", {"k_step": None})["k_step_10"] is None


def test_the_summary_is_of_the_first_metrics_that_are_there():
    assert summary("eval-model", {"nll": 0.12345, "rmse": 2.0}) == "nll 0.1235, rmse 2"
    assert summary("eval-agent", {"mean_return": 10.0, "standard_error": None}) == "mean_return 10"
    assert summary("train-agent", {}) == ""


def test_every_command_has_its_metrics():
    assert set(HEADLINES) == set(FIRST) == set(COMMANDS)
    assert set(LIVE) == set(TRAININGS)
    assert all(set(names) <= set(HEADLINES[command]) for command, names in FIRST.items())
