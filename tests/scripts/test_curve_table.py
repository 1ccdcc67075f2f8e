"""The table carries the numbers of the rows: means, spreads, what lies between steps, hours."""

import csv

from mbrl_bilevel.scripts.curve_table import COLUMNS, table, write_rows


def rows(agent, seed, returns, seconds):
    return [
        {"env": "A-v0", "agent": agent, "seed": seed, "step": s, "return": r, "seconds": seconds}
        for s, r in returns.items()
    ]


FOUND = [
    *rows("one", 0, {5_000: 10.0, 15_000: 30.0, 20_000: 100.0}, 3_600),
    *rows("one", 1, {10_000: 40.0, 20_000: 300.0}, 7_200),
    *rows("two", 0, {8_000: 7.0}, 1_800),
]


def test_means_and_spreads_at_published_steps_and_the_last():
    """At 10,000: (10 + 30) / 2 and 40; at 20,000: 100 and 300; two ends before both."""
    head, one, two, peer = table("A-v0", FOUND, {"peer": [{0: 0.0, 40_000: 80.0}]}).splitlines()
    assert head.split() == ["A-v0", "10,000", "20,000", "hours"]
    assert one.split() == ["one", "30", "(20", "to", "40)", "200", "(100", "to", "300)", "1.50"]
    assert two.split() == ["two", "0.50"]
    assert peer.split() == ["peer,", "published", "20", "40"]
    assert table("B-v0", FOUND, {}) == "B-v0: no evaluation"


def test_the_csv_file_holds_every_row(tmp_path):
    write_rows(FOUND, tmp_path / "curves.csv")
    with (tmp_path / "curves.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [tuple(row) for row in read] == [COLUMNS] * len(FOUND)
    assert [float(row["return"]) for row in read] == [row["return"] for row in FOUND]
