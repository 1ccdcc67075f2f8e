"""Metrics of models by where they come from."""

from dataclasses import replace

from mbrl_bilevel.scripts.model_metrics import by_steps_ahead, horizons, sources
from mbrl_bilevel.scripts.run_reading import read_run
from tests.scripts.run_folders import model_run

ON_TEST = {"source": "the test episodes of a", "rmse": 0.2, "k_step": {"1": 0.2, "10": 0.9}}
ON_OTHER = {"source": "b", "rmse": 0.3, "k_step": {"1": 0.3, "50": None}}


def test_each_set_of_data_has_metrics_of_its_own(tmp_path):
    first = read_run(model_run(tmp_path / "a", 0, 0.5, evaluation=ON_TEST))
    other = read_run(model_run(tmp_path / "b", 1, 0.6, evaluation=ON_OTHER))
    second = {"mse": 0.04, "open_loop": 0.7, "open_loop_steps": 10.0}
    runs = [replace(first, second=second), other]
    found = {source.name: source for source in sources(runs)}
    assert list(found) == ["test", "eval-1", "eval-2", "second"]
    assert found["eval-2"].title == "The test episodes of a (eval-model)"
    values = {
        metric.label: [metric.of(run) for run in runs]
        for source in found.values()
        for metric in source.named
    }
    assert values["test: RMSE"] == [0.5, 0.6]
    assert values["eval-2: RMSE"] == [0.2, None]
    assert values["eval-2: RMSE after 10 steps"] == [0.9, None]
    assert values["eval-1: RMSE"] == [None, 0.3]
    assert values["second: MSE"] == [0.04, None]
    assert values["second: RMSE after 10 steps"] == [0.7, None]
    assert horizons(runs) == [1, 10]
    better = {metric.label: metric.better for metric in found["test"].metrics}
    assert (better["RMSE"], better["NLL"], better["R²"]) == ("smaller", "smaller", "larger")


def test_seeds_that_were_evaluated_on_their_own_data_are_one_source(tmp_path):
    runs = [
        read_run(
            model_run(
                tmp_path / f"{seed}",
                seed,
                0.5,
                evaluation={"source": f"the test episodes of d/random-{seed}-v0", "rmse": seed},
            )
        )
        for seed in (1, 2)
    ]
    _, own, _ = sources(runs)
    assert own.title == "The test episodes of d/random-SEED-v0 (eval-model)"
    assert [own.metrics[0].of(run) for run in runs] == [1.0, 2.0]


def test_what_is_no_error_by_steps_is_none():
    for found in (None, [], "1", {"x": 1.0}, {"1": None}, {"1": float("nan")}):
        assert by_steps_ahead(found) == {}
