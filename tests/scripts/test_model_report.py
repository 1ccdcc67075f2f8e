"""The section on models: errors, open-loop growth, calibration, learned U."""

import pytest

from mbrl_bilevel.scripts.model_report import model_section
from mbrl_bilevel.scripts.run_groups import grouped
from mbrl_bilevel.scripts.run_reading import read_run
from tests.scripts.run_folders import FINGERPRINT, model_run


def section(*folders):
    return model_section("Hopper-v5", "hopper", grouped([read_run(f) for f in folders]), 0)


def evaluation(error):
    return {
        "source": "b",
        "rmse": error,
        "k_step": {"1": error, "10": 3 * error},
        "k_step_persistence": {"1": 2.0, "10": 4.0},
        "k_step_coverage": {"50": {"1": 0.4, "10": 0.3}, "90": {"1": 0.8, "10": None}},
    }


def test_tables_hold_the_seeds_of_every_source(tmp_path):
    folders = [
        model_run(tmp_path / f"{i}", i, v, evaluation=evaluation(v))
        for i, v in enumerate((0.1, 0.2, 0.6))
    ]
    found = section(*folders, model_run(tmp_path / "cut", 3, 9.0, finished=False))
    tables = {table.name: table for table in found.tables}
    (row,) = tables["hopper-test"].rows
    values = dict(zip(tables["hopper-test"].columns, row, strict=True))
    assert values["seeds"] == 3
    assert values["RMSE"].value == pytest.approx(0.3)  # up to three seeds it is their mean
    (row,) = tables["hopper-eval"].rows
    assert [cell.value for cell in row[2:]] == pytest.approx([0.3, 0.3, 0.9])
    assert tables["hopper-coverage"].columns[2:] == [
        *("50 % after 1 steps", "50 % after 10 steps", "90 % after 1 steps")
    ]
    ((_, _, parameters, steps, seconds),) = tables["hopper-cost"].rows
    assert (parameters.value, steps.value, seconds.value) == (1234, 30, 2.5)
    assert [row[2] for row in tables["hopper-runs"].rows] == ["finished"] * 3 + ["interrupted"]
    figures = [part for part in found.parts if part not in found.tables]
    captions = " ".join(figure.caption for figure in figures)
    for words in ("every seed", "Open-loop error", "Calibration", "Held-out NLL"):
        assert words in captions
    growth = next(figure for figure in figures if "Open-loop" in figure.caption)
    assert "persistence" in growth.svg
    assert "linear model" not in growth.svg


def test_data_sets_that_differ_are_said_to_be_other_units(tmp_path):
    other = FINGERPRINT | {"observations": "ffff"}
    folders = (model_run(tmp_path / "a", 0, 1.0), model_run(tmp_path / "b", 1, 1.0))
    assert len(section(*folders).text) == 1
    mixed = section(folders[0], model_run(tmp_path / "c", 1, 1.0, fingerprint=other))
    assert "different units" in mixed.text[1]
