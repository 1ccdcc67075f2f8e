"""Returns, curves and cost of agents."""

import pytest

from mbrl_bilevel.scripts.agent_report import (
    agent_section,
    curve,
    final_return,
    mean_return,
    seconds,
)
from mbrl_bilevel.scripts.run_groups import grouped
from mbrl_bilevel.scripts.run_reading import read_run
from tests.scripts.run_folders import agent_run, write

RETURNS = {100: 0.0, 200: 10.0, 400: 40.0}


def test_the_numbers_of_a_run_follow_from_its_evaluations(tmp_path):
    run = read_run(agent_run(tmp_path / "run", 0, RETURNS))
    assert curve(run) == RETURNS
    assert final_return(run) == 40.0
    # 100 steps at 5 on average and 200 at 25, over 300 steps
    assert mean_return(run) == pytest.approx((100 * 5 + 200 * 25) / 300)
    assert seconds(run) == pytest.approx(40.0)  # a tenth of a second a step


def test_pets_has_the_returns_of_its_training_episodes(tmp_path):
    lines = [{"step": 50, "real/return": 3.0}, {"step": 100, "real/return": float("nan")}]
    run = read_run(write(tmp_path / "run", {"agent": "pets", "seed": 0}, lines, {"steps": 100}))
    assert curve(run) == {50: 3.0}
    assert (final_return(run), mean_return(run), seconds(run)) == (3.0, None, None)


def test_a_section_keeps_unfinished_runs_apart(tmp_path):
    runs = [agent_run(tmp_path / f"{i}", i, {100: v, 300: 2 * v}) for i, v in enumerate((1.0, 3.0))]
    runs.append(agent_run(tmp_path / "cut", 2, {100: 50.0, 200: 60.0}, finished=False))
    groups = grouped([read_run(folder) for folder in runs])
    published = {"peer": [{0: 0.0, 400: 8.0}]}
    section = agent_section("Hopper-v5", "hopper", groups, published, 0)
    tables = {table.name: table for table in section.tables}
    ((_, seeds, final, over_training),) = tables["hopper-returns"].rows
    assert (seeds, final.value) == (2, 4.0)
    assert over_training.value == pytest.approx((1.5 + 4.5) / 2)
    assert tables["hopper-curves"].columns == ["group", "seeds", "at 300"]
    assert tables["hopper-curves"].rows == [
        ["sac", 2, 4.0],
        ["sac, unfinished", 1, None],
        ["peer, published", 1, pytest.approx(6.0)],
    ]
    assert len(tables["hopper-runs"].rows) == 3
    figures = [part for part in section.parts if part not in section.tables]
    assert all(figure.svg.startswith("<svg") and figure.alt for figure in figures)
    assert "sac, unfinished (1 seed)" in figures[1].svg
    assert "peer, published (1 seed)" in figures[1].svg


def test_a_section_without_a_finished_run_has_curves_alone(tmp_path):
    run = read_run(agent_run(tmp_path / "cut", 2, {100: 50.0}, finished=False))
    section = agent_section("Hopper-v5", "hopper", grouped([run]), {}, 0)
    assert [table.name for table in section.tables] == ["hopper-curves", "hopper-runs"]
    begun = read_run(write(tmp_path / "b", {"agent": "sac", "seed": 0}, [{"step": 5}], None))
    section = agent_section("t", "t", grouped([begun]), {}, 0)
    assert [table.name for table in section.tables] == ["t-runs"]
