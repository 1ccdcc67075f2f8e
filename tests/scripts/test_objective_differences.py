"""Differences of returns between objectives, paired by seed."""

import numpy as np
import pytest
from scipy import stats

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.find_runs import find_runs
from mbrl_bilevel.scripts.objective_differences import (
    difference_table,
    differences,
    reference_objective,
    verdict,
)
from mbrl_bilevel.scripts.run_groups import grouped
from tests.scripts.run_folders import FINGERPRINT, evaluation, model_run


def study(folder, returns, **config):
    """Models of the objectives, evaluated; `returns` are those of episodes by objective and seed.

    Each seed has a data set of its own.
    """
    for objective, of_seeds in returns.items():
        for seed, played in of_seeds.items():
            data = {"dataset": f"hopper/random-{seed}-v0"}
            data["fingerprint"] = FINGERPRINT | {"observations": f"{seed}" * 8}
            name = f"{objective}-{seed}"
            model = model_run(folder / name, seed, 0.1, objective=objective, **data | config)
            evaluation(folder / f"{name},eval-agent/eval-001", model, played)
    return folder


def evaluated(folder):
    return [g for g in grouped(find_runs("RUN", [folder])) if g.kind == "evaluations"]


def test_the_interval_is_that_of_the_paired_t_test(tmp_path):
    generator = np.random.default_rng(3)
    starts = generator.normal(-8, 1, (6, 4))  # seeds, episodes
    reference = {s: list(starts[s]) for s in range(6)}
    other = {s: list(starts[s] + 1 + generator.normal(0, 0.3, 4)) for s in range(6)}
    (found,) = differences(evaluated(study(tmp_path, {"nll": reference, "mse": other})), "nll")
    first, second = (np.array([one[s] for s in range(6)]).mean(-1) for one in (reference, other))
    expected = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert found.difference.value == pytest.approx((second - first).mean())
    assert found.difference.interval == pytest.approx((expected.low, expected.high))
    # Returns are negative: less of them is still better.
    size = abs(first.mean())
    assert found.share.interval == pytest.approx((expected.low / size, expected.high / size))
    assert found.verdict(0.05) == "better"
    assert (found.episodes, len(found.first)) == (24, 6)
    table = difference_table("d", [found], 0.05)
    assert table.rows[0][:4] == ["mse", "nll", 6, 24]
    assert table.rows[0][-1] == "better"


def test_only_what_both_have_is_paired(tmp_path):
    returns = {"nll": {0: [1.0, 3.0], 1: [2.0, 2.0], 3: [9.0, 9.0]}}
    returns["mse"] = {0: [2.0, 4.0], 1: [4.0, 4.0], 2: [50.0, 50.0]}
    (found,) = differences(evaluated(study(tmp_path, returns)), "nll")
    assert (found.first, found.second) == ([2.0, 2.0], [3.0, 4.0])
    assert found.difference.value == 1.5


def test_other_data_of_the_same_name_and_seed_is_no_pair(tmp_path):
    study(tmp_path / "a", {"nll": {0: [1.0], 1: [2.0]}})
    other = {"fingerprint": FINGERPRINT | {"observations": "ffffffff"}}
    study(tmp_path / "b", {"mse": {0: [1.0], 1: [2.0]}}, **other)
    assert differences(evaluated(tmp_path), "nll") == []


def test_groups_are_compared_where_the_settings_that_both_have_are_equal(tmp_path):
    for width in (64, 128):
        returns = {name: {0: [width + place]} for place, name in enumerate(("nll", "mse"))}
        study(tmp_path / str(width), returns, hidden=[width])
    study(tmp_path / "own", {"beta_nll": {0: [0.0]}}, hidden=[64], beta=0.5)
    found = differences(evaluated(tmp_path), "nll")
    pairs = {(one.group.name, one.reference.name): one.difference.value for one in found}
    assert pairs == {
        ("beta_nll", "nll, model hidden [64]"): -64.0,
        ("mse, model hidden [64]", "nll, model hidden [64]"): 1.0,
        ("mse, model hidden [128]", "nll, model hidden [128]"): 1.0,
    }
    assert all(one.difference.interval is None and one.verdict(0.05) is None for one in found)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((0.06, 0.2), "better"),
        ((0.05, 0.2), "undecided"),
        ((-0.2, -0.06), "worse"),
        ((-0.05, 0.05), "within"),
        ((-0.06, 0.01), "undecided"),
        ((-0.2, 0.2), "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval(ends, expected):
    assert verdict(ends, 0.05) == expected


def test_there_is_no_share_of_nothing(tmp_path):
    returns = {"nll": {0: [1.0], 1: [-1.0]}, "mse": {0: [2.0], 1: [0.0]}}
    (found,) = differences(evaluated(study(tmp_path, returns)), "nll")
    assert found.difference == (1.0, (1.0, 1.0))
    assert (found.share, found.verdict(0.1)) == (None, None)


@pytest.mark.situation("refused")
def test_the_reference_is_nll_or_what_is_named(tmp_path):
    groups = evaluated(study(tmp_path, {"mse": {0: [1.0]}, "nll": {0: [1.0]}}))
    assert reference_objective(groups, None) == "nll"
    assert reference_objective(groups, "mse") == "mse"
    assert reference_objective([g for g in groups if g.name == "mse"], None) is None
    with pytest.raises(InputError, match=r"--reference pg: .* are of it; choose one of mse, nll"):
        reference_objective(groups, "pg")
    with pytest.raises(InputError, match=r"--reference nll: .* are of it; leave it out"):
        reference_objective([], "nll")
