"""Tables as they are read and as csv files."""

import csv

import pytest

from mbrl_bilevel.evaluation.returns import Estimate
from mbrl_bilevel.scripts.report_parts import Table, shown


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        ("a", "a"),
        (439110, "439,110"),
        (1039.19, "1,039"),
        (-0.0073413, "-0.007341"),
        (0.5, "0.5"),
        (Estimate(2.0, None), "2"),
        (Estimate(1.23456, (1.0, 12345.6)), "1.235 [1, 12,346]"),
    ],
)
def test_cells_are_short(cell, text):
    assert shown(cell) == text


def test_csv_files_hold_all_digits_and_intervals(tmp_path):
    rows = [["a", Estimate(1 / 3, (0.1, 0.2)), 1], ["b", None, 2], ["c", Estimate(2.0, None), None]]
    table = Table("t", "title", ["group", "x", "n"], rows)
    assert table.numeric == [False, True, True]
    with table.write_csv(tmp_path).open(newline="") as file:
        found = list(csv.DictReader(file))
    assert (tmp_path / "t.csv").is_file()
    assert found == [
        {"group": "a", "x": str(1 / 3), "x low": "0.1", "x high": "0.2", "n": "1"},
        {"group": "b", "x": "", "x low": "", "x high": "", "n": "2"},
        {"group": "c", "x": "2.0", "x low": "", "x high": "", "n": ""},
    ]


def test_an_empty_table_has_columns():
    assert Table("t", "title", ["a", "b"], []).numeric == [False, False]
