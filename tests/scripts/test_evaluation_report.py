"""The section of a report on results of eval-agent."""

import numpy as np
import pytest

from mbrl_bilevel.evaluation.returns import estimate
from mbrl_bilevel.scripts.evaluation_report import evaluation_section
from tests.scripts.run_folders import evaluation, model_run
from tests.scripts.test_objective_differences import evaluated, study


@pytest.fixture
def groups(tmp_path):
    returns = {
        name: {seed: [seed + place, seed + place + 2.0] for seed in range(5)}
        for place, name in enumerate(("mse", "nll"))
    }
    study(tmp_path, returns)
    model = model_run(tmp_path / "cut", 9, 0.1, objective="mse", dataset="hopper/random-9-v0")
    evaluation(tmp_path / "cut,eval-agent/eval-001", model, [7.0, 7.0], complete=False)
    return evaluated(tmp_path)


def tables(groups, reference="nll"):
    section = evaluation_section("Hopper-v5", "h", groups, reference, 0.05, 0)
    return {table.name: table for table in section.tables}


def test_the_unit_is_the_seed_and_its_return_the_mean_over_episodes(groups):
    table = tables(groups)["h-returns"]
    assert table.printed
    for row, place in zip(table.rows, (0, 1), strict=True):
        values = [place + seed + 1.0 for seed in range(5)]
        expected = [
            estimate([values], name, generator=np.random.default_rng(0)) for name in ("mean", "iqm")
        ]
        assert row[1:5] == [5, 10, *expected]
    assert [row[0] for row in table.rows] == ["mse", "nll"]
    assert table.columns[5:] == ["ms a step, mean"]
    assert table.rows[0][5].value == 2.0


def test_differences_stand_beside_them_and_what_is_cut_short_in_the_last_table_alone(groups):
    found = tables(groups)
    ((name, reference, seeds, episodes, change, *_),) = found["h-differences"].rows
    assert (name, reference, seeds, episodes, change.value) == ("mse", "nll", 5, 10, -1.0)
    runs = found["h-runs"].rows
    assert [row[2] for row in runs].count("interrupted") == 1
    assert "h-differences" not in tables(groups, None)
