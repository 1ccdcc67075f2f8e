"""The csv files of docs/results, the tables on its pages and the headlines of RESULTS.md agree."""

import csv
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results"
TABLES = sorted(RESULTS.glob("*.csv"))
PAGES = "\n".join(p.read_text() for p in sorted(RESULTS.glob("*.md")))
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?")


def _numbers(text: str) -> set[str]:
    return {number.replace(",", "").rstrip(",") for number in NUMBER.findall(text)}


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.name)
def test_a_page_links_to_the_table_and_shows_its_numbers(table: Path) -> None:
    page = next(p for p in RESULTS.glob("*.md") if f"({table.name})" in p.read_text())
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(None not in row and None not in row.values() for row in rows)
    if {"real_steps", "step"} & rows[0].keys() and (RESULTS / f"{table.stem}.png").exists():
        return  # a curve, which the page shows as a figure
    columns = [c for c in rows[0] if c not in ("seeds", "cpu", "command")]
    cells = {row[c] for row in rows for c in columns if NUMBER.fullmatch(row[c] or "x")}
    assert {cell.replace(",", "") for cell in cells} - _numbers(page.read_text()) == set()


def test_every_headline_number_stands_on_a_page() -> None:
    details = _numbers(PAGES + "\n".join(table.read_text() for table in TABLES))
    details |= {f"{float(number):g}" for number in details}
    lines = (ROOT / "RESULTS.md").read_text().split("\n## ", 1)[1].splitlines()
    shown = _numbers("\n".join(line for line in lines if line.startswith("|")))
    assert {n for n in shown if n not in details and f"{float(n):g}" not in details} == set()
