"""Correlation of metrics with returns against scipy, and its interval against its meaning."""

import json

import numpy as np
import pytest
import yaml
from scipy import stats

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.comparison_figures import mismatch_scatter
from mbrl_bilevel.evaluation.mismatch import (
    Acted,
    correlations,
    different_settings,
    pearson,
    read_acted,
    why_not,
)


def acted(nll, returns, **settings):
    metrics = {"rmse": 1.0, "nll": nll, "ece": 0.1, "k_step 10": 1.0, "k_step 50": None}
    return Acted(f"model {nll}", metrics, returns, "Hopper-v5", settings)


def test_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    models = [acted(nll, list(rng.normal(-3 * nll, 2.0, 4))) for nll in rng.normal(size=8)]
    found = {one.metric: one for one in correlations(models, rng, resamples=50)}
    nll, means = [m.metrics["nll"] for m in models], [np.mean(m.returns) for m in models]
    assert found["nll"].spearman == pytest.approx(stats.spearmanr(nll, means).statistic)
    assert found["nll"].pearson == pytest.approx(stats.pearsonr(nll, means).statistic)
    assert found["nll"].models == 8
    assert "k_step 50" not in found  # no model has it
    constant = found["rmse"].as_json()
    assert constant["spearman"] is None
    assert constant["pearson_interval"] is None


def test_every_row_has_its_own_correlation():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 6, 9))
    assert pearson(x, y) == pytest.approx(
        [np.corrcoef(a, b)[0, 1] for a, b in zip(x, y, strict=True)]
    )


def test_a_metric_that_orders_models_perfectly_is_minus_one_for_certain():
    models = [acted(float(nll), [-10.0 * nll, -10.0 * nll]) for nll in range(6)]
    found = {one.metric: one for one in correlations(models, np.random.default_rng(0))}["nll"]
    assert found.spearman == pytest.approx(-1)
    assert found.spearman_interval == pytest.approx((-1, -1))


def test_noisy_returns_widen_the_interval():
    """The same mean returns: from episodes that agree, and from two that differ by 200."""

    def interval(spread):
        models = [acted(float(n), [-10.0 * n - spread, -10.0 * n + spread]) for n in range(6)]
        found = {one.metric: one for one in correlations(models, np.random.default_rng(0))}
        low, high = found["nll"].spearman_interval
        return high - low

    assert interval(100.0) > 0.5 + interval(0.0)


def test_the_interval_holds_the_true_correlation_about_as_often_as_it_says():
    """Over 60 draws of 25 models with correlation -0.6; a percentile bootstrap is a bit short."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(60):
        nll = rng.normal(size=25)
        returns = -0.6 * nll + 0.8 * rng.normal(size=25)
        models = [acted(a, [b]) for a, b in zip(nll, returns, strict=True)]
        found = {one.metric: one for one in correlations(models, rng, resamples=300)}["nll"]
        inside += found.pearson_interval[0] <= -0.6 <= found.pearson_interval[1]
    # 57 expected; four standard deviations of a binomial, 1.7, below are 50
    assert inside >= 49


def folder(tmp_path, number=1, agent="mpc", returns=(1.0, 2.0), env="Hopper-v5", horizon=20):
    results = tmp_path / f"eval-{number:03}"
    results.mkdir(parents=True)
    (results / "summary.json").write_text(
        json.dumps({"agent": agent, "returns": list(returns), "env": env})
    )
    (results / "config.yaml").write_text(yaml.safe_dump({"horizon": horizon, "seed": number}))
    judged = {"rmse": 0.5, "nll": -1.0, "ece": None, "k_step": {"10": 0.7}}
    (tmp_path / "evaluation.json").write_text(json.dumps(judged))
    return tmp_path


def test_the_newest_result_of_planning_is_read(tmp_path):
    for number in (2, 9, 10):
        folder(tmp_path, number, returns=(float(number),))
    folder(tmp_path, 11, agent="policy", returns=(99.0,))
    found = read_acted(tmp_path)
    assert found.returns == [10.0]
    assert found.metrics == {
        "rmse": 0.5,
        "nll": -1.0,
        "ece": None,
        "k_step 10": 0.7,
        "k_step 50": None,
    }
    assert found.settings == {"horizon": 20}


def test_models_that_cannot_be_correlated_say_why(tmp_path):
    a, b, c = (read_acted(folder(tmp_path / name)) for name in "abc")
    other = read_acted(folder(tmp_path / "d", env="Walker2d-v5"))
    assert why_not([a, b, c]) is None
    assert "1 of 3 models without results" in why_not([a, None, c])
    assert "name 3 or more" in why_not([a, b])
    assert "Hopper-v5, Walker2d-v5" in why_not([a, b, other])
    assert read_acted(tmp_path / "nothing") is None
    far = read_acted(folder(tmp_path / "e", horizon=5))
    assert different_settings([a, b, c]) == []
    assert different_settings([a, far]) == ["horizon"]


@pytest.mark.parametrize("text", ["{", "[]", '{"agent": "mpc"}'])
def test_damaged_results_are_named(tmp_path, text):
    folder(tmp_path)
    (tmp_path / "eval-001/summary.json").write_text(text)
    with pytest.raises(InputError, match=r"summary\.json"):
        read_acted(tmp_path)


def test_the_scatter_shows_every_model_at_its_metric_and_mean_return():
    models = [acted(float(nll), [-10.0 * nll, -10.0 * nll + 2]) for nll in range(4)]
    found = [c for c in correlations(models, np.random.default_rng(0)) if c.metric == "nll"]
    axes = mismatch_scatter(list("abcd"), models, found).axes[0]
    points = [container[0].get_xydata()[0].tolist() for container in axes.containers]
    assert points == [[nll, -10.0 * nll + 1] for nll in range(4)]
    assert "-1.00" in axes.get_title(loc="left")
