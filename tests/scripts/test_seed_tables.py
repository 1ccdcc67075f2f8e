"""Numbers of groups are interquartile means over finished seeds."""

import pytest

from mbrl_bilevel.evaluation.returns import Estimate
from mbrl_bilevel.scripts.run_groups import grouped
from mbrl_bilevel.scripts.run_reading import read_run
from mbrl_bilevel.scripts.seed_tables import (
    Metric,
    group_list,
    group_table,
    run_table,
    settings_table,
)
from tests.scripts.run_folders import agent_run

LAST = Metric("last", lambda run: run.lines[-1].get("evaluation/return"))
ABSENT = Metric("absent", lambda run: None)
SEEDS = [3.0, 1.0, 100.0, 5.0]


@pytest.fixture
def groups(tmp_path):
    runs = [agent_run(tmp_path / f"a{i}", i, {10: v}, steps=1) for i, v in enumerate(SEEDS)]
    runs.append(agent_run(tmp_path / "a4", 4, {10: -1e6}, finished=False, steps=1))
    runs.append(agent_run(tmp_path / "b0", 0, {10: 7.0}, steps=2))
    return grouped([read_run(folder) for folder in runs])


def test_a_group_has_the_interquartile_mean_of_its_finished_seeds(groups):
    """Of 1, 3, 5 and 100 the outer two are left out; the unfinished run counts nowhere."""
    table = group_table("t", "title", groups, [LAST, ABSENT], 0)
    assert table.columns == ["group", "seeds", "last"]
    (name, seeds, (value, (low, high))), (_, one, alone) = table.rows
    assert (name, seeds, value) == ("sac, steps 1", 4, 4.0)
    assert 1 <= low < 4 < high <= 100
    assert (one, alone) == (1, Estimate(7.0, None))
    assert group_table("t", "title", groups, [ABSENT], 0) is None


def test_every_run_stands_in_its_table_with_its_folder(groups, tmp_path):
    table = run_table("t", groups, [LAST, ABSENT])
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(r["seed"], r["state"], r["last"]) for r in rows] == [
        *(("0", "finished", 3.0), ("1", "finished", 1.0), ("2", "finished", 100.0)),
        *(("3", "finished", 5.0), ("4", "interrupted", -1e6), ("0", "finished", 7.0)),
    ]
    assert rows[5]["folder"] == str(tmp_path / "b0")
    assert not table.folded


def test_groups_and_the_settings_that_tell_them_apart(groups):
    assert [row[3:] for row in group_list(groups).rows] == [["0, 1, 2, 3", "4"], ["0", ""]]
    assert settings_table("t", groups).rows == [["steps", "1", "2"]]
    assert settings_table("t", groups[:1]) is not None  # it differs from a group elsewhere
    (alone,) = grouped(groups[0].runs)
    assert settings_table("t", [alone]) is None
