"""Runs that differ in their seed alone are one group."""

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.run_groups import grouped
from mbrl_bilevel.scripts.run_reading import read_run
from tests.scripts.run_folders import HOPPER, agent_run, model_run


def read(*folders):
    return [read_run(folder) for folder in folders]


def test_seeds_are_together_and_settings_apart(tmp_path):
    runs = read(
        agent_run(tmp_path / "b", 1, {1: 1.0}, hidden=[8], steps=5),
        agent_run(tmp_path / "a", 0, {1: 1.0}, hidden=[8], steps=5, log_every=7),
        agent_run(tmp_path / "c", 0, {1: 1.0}, hidden=[16], steps=5),
        agent_run(tmp_path / "d", 0, {1: 1.0}, agent="mbpo", members=5),
        model_run(tmp_path / "e", 0, 0.1),
    )
    groups = grouped(runs)
    assert [(g.kind, g.name, [run.seed for run in g.runs]) for g in groups] == [
        ("agents", "sac, hidden [8]", [0, 1]),
        ("agents", "sac, hidden [16]", [0]),
        ("agents", "mbpo", [0]),
        ("models", "nll", [0]),
    ]
    assert groups[0].differing == {"hidden": "[8]"}
    assert groups[0].settings["steps"] == "5"


def test_unfinished_runs_are_in_the_group_and_not_among_the_finished(tmp_path):
    (group,) = grouped(
        read(
            agent_run(tmp_path / "a", 0, {1: 1.0}),
            agent_run(tmp_path / "b", 1, {1: 1.0}, finished=False),
        )
    )
    assert ([r.seed for r in group.finished], [r.seed for r in group.unfinished]) == ([0], [1])


def test_tasks_are_apart_and_a_damaged_run_is_in_no_group(tmp_path):
    heavier = HOPPER | {"kwargs": {"ctrl_cost_weight": 1}}
    damaged = agent_run(tmp_path / "c", 0, {1: 1.0})
    (damaged / "config.yaml").unlink()
    groups = grouped(
        read(
            agent_run(tmp_path / "a", 0, {1: 1.0}),
            agent_run(tmp_path / "b", 0, {1: 1.0}, environment=heavier),
            damaged,
        )
    )
    assert [g.task for g in groups] == ["Hopper-v5", "Hopper-v5(ctrl_cost_weight=1)"]
    assert all(not g.differing for g in groups)


def test_names_stay_apart_where_many_settings_differ(tmp_path):
    many = [{f"s{i}": i + place * (i == 4) for i in range(5)} for place in range(2)]
    other = {f"s{i}": 9 for i in range(5)}
    runs = [
        agent_run(tmp_path / f"{n}", 0, {1: 1.0}, **config)
        for n, config in enumerate([*many, other])
    ]
    names = [g.name for g in grouped(read(*runs))]
    assert names == [
        "sac, s0 0, s1 1, s2 2, 2 more #1",
        "sac, s0 0, s1 1, s2 2, 2 more #2",
        "sac, s0 9, s1 9, s2 9, 2 more",
    ]


def test_the_same_settings_in_both_sets_are_two_groups(tmp_path):
    groups = grouped(
        read(agent_run(tmp_path / "a", 0, {1: 1.0})), read(agent_run(tmp_path / "b", 0, {1: 1.0}))
    )
    assert [(g.name, g.against) for g in groups] == [("sac", False), ("sac (against)", True)]


@pytest.mark.situation("refused")
def test_a_seed_does_not_count_twice(tmp_path):
    runs = read(*(agent_run(tmp_path / name, 5, {1: 1.0}) for name in ("a", "b")))
    with pytest.raises(InputError, match=r"seed 5 of sac on Hopper-v5 stands in \S*a and in \S*b"):
        grouped(runs)


def test_seeds_with_a_data_set_each_are_one_group(tmp_path):
    def model(name, seed, data):
        return model_run(tmp_path / name, seed, 0.1, dataset=f"d/random-{data}-v0")

    own = read(*(model(f"own{seed}", seed, seed) for seed in (1, 2)))
    (group,) = grouped(own)
    assert (group.dataset, [run.seed for run in group.runs]) == ("d/random-SEED-v0", [1, 2])
    # A number that is no seed: all seeds learn from the same data.
    same = read(*(model(f"same{seed}", seed, 1) for seed in (1, 2)))
    (group,) = grouped(same)
    assert (group.dataset, len(group.runs)) == ("d/random-1-v0 (aaaabbbb)", 2)
