"""`reproduce dynamics` at toy size: equal parameters, rows, resuming, paired differences."""

import csv
import json

import pytest

from mbrl_bilevel.scripts import reproduce_dynamics as dynamics
from mbrl_bilevel.scripts.main import run

ENV, OBJECTIVES = "HalfCheetah-v5", ("nll", "two_means", "separate-wide")


@pytest.fixture
def small(monkeypatch):
    """Data sets of 400 steps, in which no episode ends, and networks of 3 x 40 units."""
    sizes = {"TRANSITIONS": 400, "TEST_TRANSITIONS": 200, "TEST_EPISODES": 1, "WIDTH": 40}
    for name, value in sizes.items():
        monkeypatch.setattr(dynamics, name, value)


@pytest.mark.filterwarnings("default::UserWarning")
def test_networks_are_of_equal_size_and_every_run_has_its_row(small, tmp_path, capsys):
    flags = ["--envs", ENV, "--objectives", *OBJECTIVES, "--seeds", "2", "--steps", "3"]
    flags = ["reproduce", "dynamics", *flags, "--out", str(tmp_path / "out")]
    flags += ["--data", str(tmp_path / "data"), "--json"]
    assert run(flags) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out.splitlines()[-1])["test"][ENV]
    assert list(found) == list(OBJECTIVES)
    size = found["nll"][0]["parameters"]
    for objective, times in zip(OBJECTIVES, (1, 1, 2), strict=True):
        assert [r["seed"] for r in found[objective]] == [0, 1]
        assert found[objective][0]["parameters"] == pytest.approx(times * size, rel=0.05)
    with (tmp_path / "out/dynamics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["objective"], r["seed"]) for r in rows] == [(o, s) for s in "01" for o in OBJECTIVES]
    assert float(rows[0]["nll"]) == found["nll"][0]["nll"]

    model = tmp_path / "out" / ENV / "two_means-1/model.safetensors"
    before = model.stat().st_mtime_ns
    assert run(flags) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])["test"][ENV]
    assert again == found
    assert model.stat().st_mtime_ns == before

    # Another command in the same folder leaves the rows of the first one in the file.
    other = ["--objectives", "mse", "--seeds", "1", "--steps", "3", "--envs", ENV]
    folders = ["--out", str(tmp_path / "out"), "--data", str(tmp_path / "data")]
    assert run(["reproduce", "dynamics", *other, *folders]) == 0
    with (tmp_path / "out/dynamics.csv").open(newline="") as file:
        kept = list(csv.DictReader(file))
    assert kept[:-1] == rows
    assert (kept[-1]["objective"], kept[-1]["seed"]) == ("mse", "0")


def test_differences_are_paired_by_seed():
    """Differences of 1 and 3 from nll, whose own values vary by 100: 2 +- 12.706 * 1."""

    def row(objective, seed, value):
        others = dict.fromkeys(("ece", "seconds", "parameters"), 1)
        return {"environment": "E", "objective": objective, "seed": seed} | others | {
            "mse": value, "nll": value, "open_loop": value
        }  # fmt: skip

    rows = [row("nll", 0, 0.0), row("mse", 0, 1.0), row("nll", 1, 100.0), row("mse", 1, 103.0)]
    *_, said, last = dynamics.table("E", rows).splitlines()
    assert said == "difference to nll, same seeds: mean (95 % interval)"
    assert "NLL +2.000 (-10.706 to +14.706)" in last


def test_a_file_of_an_earlier_version_is_not_written_over(small, tmp_path, capsys):
    (tmp_path / "dynamics.csv").write_text("environment,objective,seed,mse\nE,nll,0,1.0\n")
    flags = ["--envs", ENV, "--objectives", "nll", "--out", str(tmp_path)]
    assert run(["reproduce", "dynamics", *flags]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("dynamics.csv is of an earlier version: choose another --out")
    assert "nll,0,1.0" in (tmp_path / "dynamics.csv").read_text()


def test_too_few_test_episodes_are_refused_in_one_sentence(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dynamics, "TEST_EPISODES", 2)
    flags = ["reproduce", "dynamics", "--envs", ENV, "--data", str(tmp_path)]
    assert run(flags) == 2
    assert "1 episodes, tests are of 2 or more" in capsys.readouterr().err.splitlines()[-1]
