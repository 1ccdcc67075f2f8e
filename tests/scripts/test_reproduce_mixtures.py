"""`reproduce mixtures` at toy size: its rows, its table, what is kept and what is refused."""

import csv
import json

import pytest

from mbrl_bilevel.scripts import reproduce_dynamics as dynamics
from mbrl_bilevel.scripts import reproduce_mixtures as mixtures
from mbrl_bilevel.scripts.main import run


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("default::UserWarning")
def test_every_run_has_its_rows_and_what_is_there_is_not_made_again(tmp_path, capsys, monkeypatch):
    for name, value in {"TRANSITIONS": 600, "TEST_TRANSITIONS": 200, "TEST_EPISODES": 1}.items():
        monkeypatch.setattr(dynamics, name, value)
    monkeypatch.setattr(mixtures, "WIDTH", 8)
    out = tmp_path / "out"
    flags = ["reproduce", "mixtures", "--steps", "3", "--data", str(tmp_path / "data")]
    flags += ["--out", str(out), "--json"]
    assert run([*flags, "--seeds", "1"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(found["test"]) == len(mixtures.OBJECTIVES) * 11
    assert [row["objective"] for row in found["table"]] == list(mixtures.OBJECTIVES)
    first = rows(out / "mixtures-runs.csv")
    assert float(first[5]["nll"]) == found["test"][5]["nll"]

    # Interrupted after three runs: they stay, the others are made again and are the same.
    kept = (out / "mixtures-runs.csv").read_text().splitlines(keepends=True)[: 1 + 3 * 11]
    (out / "mixtures-runs.csv").write_text("".join(kept))
    assert run([*flags, "--seeds", "2"]) == 0
    again = rows(out / "mixtures-runs.csv")
    assert len(again) == 2 * len(first)
    for before, after in zip(first, again, strict=False):
        assert before | {"processor_seconds": ""} == after | {"processor_seconds": ""}
    shown = capsys.readouterr().err
    assert "gaussian, seed 0" not in shown
    assert "learned_reward, seed 1" in shown
    assert [row["nll_standard_error"] != "" for row in rows(out / "mixtures.csv")] == [True] * 7

    assert run([*flags[:3], "4", *flags[4:]]) == 2
    assert "is of other steps than 4" in capsys.readouterr().err.splitlines()[-1]
    assert rows(out / "mixtures-runs.csv") == again
