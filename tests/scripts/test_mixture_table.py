"""The table of mixtures by hand: two seeds, three targets, differences paired by seed."""

from mbrl_bilevel.scripts.mixture_table import by_target, heavy, summarise, table

OTHERS = {"bounded_nll": 0.0, "between": 0.5, "pooled_nll": 0.0, "processor_seconds": 2.0}


def row(objective, seed, target, nll, score=1.0, kurtosis=0.0):
    return {
        "objective": objective, "seed": seed, "target": target, "nll": nll, "energy_score": score,
        "mse": 4.0, "kurtosis": kurtosis,
    } | OTHERS  # fmt: skip


ROWS = [
    *(row("gaussian", 0, n, 0.0, kurtosis=k) for n, k in (("a", 1.0), ("b", 9.0), ("c", 5.0))),
    *(row("gaussian", 1, n, 100.0, kurtosis=k) for n, k in (("a", 3.0), ("b", 1.0), ("c", 5.0))),
    row("likelihood", 0, "a", -3.0, 0.5), row("likelihood", 0, "b", 0.0, 0.5),
    row("likelihood", 0, "c", 0.0), row("likelihood", 1, "a", 97.0, 0.5),
    row("likelihood", 1, "b", 93.0, 0.5), row("likelihood", 1, "c", 101.0),
]  # fmt: skip


def test_the_heavy_half_is_that_of_the_largest_mean_kurtosis():
    assert heavy(ROWS) == ["b", "c"]


def test_means_differences_and_counts():
    """NLL: -1 and 97; less 0 and 100: -1 and -3, whose interval is -2 +- 12.706."""
    reference, found = summarise(ROWS)
    assert reference["objective"] == "gaussian"
    assert (found["nll"], found["nll_standard_error"]) == ("48.000", "49.000")
    assert found["nll_heavy"] == "48.500"
    interval = found["minus_gaussian"], found["low"], found["high"]
    assert interval == ("-2.000", "-14.706", "10.706")
    # b is as good as one Gaussian in one seed; an equal score is not better.
    assert (found["better_nll"], found["better_energy_score"]) == ("1", "2")
    assert found["rmse"] == "2.0000"


def test_one_seed_has_neither_standard_error_nor_interval():
    lines = table([r for r in ROWS if r["seed"] == 0]).splitlines()
    assert "±" not in lines[3]
    assert "| -1.000 | 1 |" in lines[3]
    assert lines[-1].split(" | ")[:3] == ["| c", "yes", "5.0"]


def test_the_nll_of_each_target_is_the_mean_over_seeds():
    first = by_target(ROWS)[0]
    expected = {"heavy": "no", "kurtosis": "2.0", "gaussian": "50.000", "likelihood": "47.000"}
    assert first == {"target": "a"} | expected
