"""The task and the settings of a run, out of its configuration."""

import pytest
import yaml

from mbrl_bilevel.scripts.run_settings import (
    of_any_seed,
    plain_value,
    printable,
    settings_of,
    task_of,
)
from tests.scripts.run_folders import FINGERPRINT, HOPPER

AGENT = {"agent": "sac", "seed": 3, "env": "Hopper-v5", "environment": HOPPER, "steps": 10}


def test_the_task_is_the_environment_with_its_arguments():
    assert task_of(AGENT) == "Hopper-v5"
    heavier = HOPPER | {"kwargs": {"ctrl_cost_weight": 1}}
    assert task_of(AGENT | {"environment": heavier}) == "Hopper-v5(ctrl_cost_weight=1)"
    assert task_of({"agent": "sac", "env": "Ant-v5"}) == "Ant-v5"  # before there was a record
    assert task_of({"objective": "nll", "dataset": "a/b-v0"}) == "data set a/b-v0"


def test_neither_seed_nor_what_only_logs_is_a_setting():
    expected = {"steps": 10, "max_episode_steps": 1000}
    assert settings_of(AGENT | {"log_every": 5, "threads": 2}) == expected


@pytest.mark.parametrize("limit", [None, 1000, 500])
def test_the_registered_time_limit_is_one_however_it_is_written(limit):
    found = settings_of(AGENT | {"environment": HOPPER | {"max_episode_steps": limit}})
    assert found["max_episode_steps"] == (limit or 1000)


def test_a_data_set_is_known_by_its_contents_wherever_it_lies():
    model = {"objective": "nll", "seed": 0, "fingerprint": FINGERPRINT}
    here, there = (settings_of(model | {"dataset": f"/{p}/medium-v0"}) for p in ("a", "b/c"))
    assert here == there == {"dataset": "medium-v0 (aaaabbbb)"}
    other = FINGERPRINT | {"observations": "ffff"}
    assert settings_of(model | {"dataset": "/a/medium-v0", "fingerprint": other}) != here


def test_settings_of_a_given_model_are_its_own_without_its_seed(tmp_path):
    for seed in (0, 1):
        (tmp_path / f"m{seed}").mkdir()
        config = {"objective": "nll", "seed": seed, "hidden": [8]}
        (tmp_path / f"m{seed}/config.yaml").write_text(yaml.safe_dump(config))
    first, second = (settings_of(AGENT | {"model": str(tmp_path / f"m{i}")}) for i in (0, 1))
    assert first == second
    assert (first["model objective"], first["model hidden"]) == ("nll", [8])
    gone = str(tmp_path / "gone")
    assert settings_of(AGENT | {"model": gone})["model"] == gone


def test_texts_out_of_files_hold_no_formula_and_no_control_characters():
    assert printable("a$x$\n") == "a?x??"
    assert len(printable("$" * 1000)) == 200
    assert plain_value([1, None, 0.5]) == "[1, null, 0.5]"
    assert plain_value(None) == "null"


def test_data_sets_of_a_seed_each_have_one_name():
    own = [(f"reacher/random-{seed}-v0 (aaaa{seed})", seed) for seed in (0, 3, 13)]
    assert of_any_seed(own) == {name: "reacher/random-SEED-v0" for name, _ in own}
    shared = [("a/random-1-v0 (b)", seed) for seed in (0, 1)]
    others = [("a/random-1-v0", 3), ("a/13/x", 3), ("a/v0_3 (3aaa)", 3), ("hopper/medium-v0", 0)]
    given = [*shared, *others]  # read by several seeds; without the seed; without others like it
    assert of_any_seed(given) == {name: name for name, _ in given}
