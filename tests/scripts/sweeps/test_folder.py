"""A sweep's folder: taken up by the same sweep or a larger one, refused by another."""

import csv
import json

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.sweeps.folder import SweepFolder, last_lines
from mbrl_bilevel.scripts.sweeps.trial import trials_of

MODEL = {"command": "train-model", "dataset": "a/b-v0", "then": {"command": "eval-model"}}


def definition(seeds, steps="30", cpus=1):
    trials = trials_of([MODEL | {"seed": seeds, "steps": steps}], 0)
    return {"cpus_per_trial": cpus, "trials": {t.name: t.words for t in trials}}


@pytest.fixture
def folder(tmp_path):
    made = SweepFolder(tmp_path / "sweep")
    made.refuse_another_sweep(definition(["0", "1"]))
    made.make(definition(["0", "1"]))
    return made


def test_the_same_sweep_and_one_with_more_values_continue(folder):
    folder.refuse_another_sweep(definition(["0", "1"]))
    folder.refuse_another_sweep(definition(["2", "1", "0"]))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (definition(["0"]), "trial seed=1 was `train-model .*and is no longer in it"),
        (definition(["0", "1"], "40"), "--steps 30` and is `train-model .*--steps 40` now"),
        (definition(["0", "1"], cpus=2), "--cpus-per-trial is 2 and was 1"),
    ],
)
def test_another_sweep_is_refused_and_nothing_is_changed(folder, other, words):
    before = {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=words):
        folder.refuse_another_sweep(other)
    assert {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()} == before


def test_other_folders_and_damage_are_refused(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        SweepFolder(tmp_path / "file").refuse_another_sweep(definition(["0"]))
    with pytest.raises(InputError, match="holds no sweep and is not empty"):
        SweepFolder(tmp_path).refuse_another_sweep(definition(["0"]))
    for text in ("trials: 3", "[", "{cpus_per_trial: 1, trials: {a: 5}}", "{trials: {}}"):
        (folder.path / "sweep.yaml").write_text(text)
        with pytest.raises(InputError, match=r"sweep\.yaml is damaged"):
            folder.refuse_another_sweep(definition(["0"]))
    with pytest.raises(InputError, match="cannot be written"):
        SweepFolder(tmp_path / "file").make(definition(["0"]))


def test_a_row_for_each_finished_trial_in_the_order_of_the_sweep(folder):
    trials = trials_of([MODEL | {"seed": ["0", "1"], "steps": "30"}], 0)
    results = {"test": {"nll": 0.25}, "steps": 12}
    for name, found in (("seed=1", results), ("seed=0,eval-model", {"k_step": {"10": 0.5}})):
        folder.result(name).write_text(json.dumps({"results": found, "starts": 2}))
    assert len(folder.write_table(trials)) == 2
    with open(folder.path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["seed=0,eval-model", "seed=1"]
    assert (rows[0]["seed"], rows[0]["k_step_10"], rows[0]["test_nll"]) == ("0", "0.5", "")
    assert (rows[1]["steps"], rows[1]["steps_taken"], rows[1]["test_nll"]) == ("30", "12", "0.25")
    assert rows[1]["starts"] == "2"
    assert rows[1]["run"] == str(folder.run("seed=1"))


def test_a_damaged_result_is_named(folder):
    folder.result("seed=0").write_text('{"results": 3}')
    with pytest.raises(InputError, match=r"seed=0\.json is damaged .*: remove it"):
        folder.found("seed=0")
    assert folder.found("seed=1") is None


def test_the_last_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_lines(path) == []
    path.write_text("".join(json.dumps({"step": i}) + "\n" for i in range(1000)) + '{"step": 10')
    assert [line["step"] for line in last_lines(path, 100)] == [994, 995, 996, 997, 998, 999]
