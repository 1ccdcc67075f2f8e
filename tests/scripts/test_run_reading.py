"""What a run folder holds, whole or not."""

import pytest

from mbrl_bilevel.scripts.run_reading import is_run, number, read_run
from mbrl_bilevel.training.folder_lock import FolderLock
from tests.scripts.run_folders import agent_run, model_run, write


def test_a_finished_run_with_all_that_is_there(tmp_path):
    folder = model_run(tmp_path / "run", 4, 0.5, evaluation={"rmse": 0.25})
    found = read_run(folder)
    assert (found.state, found.name, found.seed, found.kind) == ("finished", "nll", 4, "models")
    assert found.summary["test"]["rmse"] == 0.5
    assert found.evaluation == {"rmse": 0.25}
    assert [line["step"] for line in found.lines] == [10, 20, 30]
    assert found.last_step == 30
    assert found.remarks == ()


def test_a_run_that_is_written_to_is_running_and_else_interrupted(tmp_path):
    folder = agent_run(tmp_path / "run", 0, {100: 1.0}, finished=False)
    lock = FolderLock(folder)
    assert read_run(folder).state == "running"
    lock.release()
    assert read_run(folder).state == "interrupted"
    empty = agent_run(tmp_path / "empty", 0, {}, finished=False)
    assert read_run(empty).state == "without results"


@pytest.mark.situation("warned")
@pytest.mark.parametrize(
    ("file", "text", "state", "remark"),
    [
        ("config.yaml", "agent: [", "damaged", "config.yaml is damaged"),
        ("config.yaml", "", "damaged", "config.yaml is damaged: it holds no mapping"),
        ("config.yaml", "steps: 3", "damaged", "names neither an agent nor an objective"),
        ("config.yaml", "agent: sac", "damaged", "names no seed"),
        ("config.yaml", "agent: sac\nseed: true", "damaged", "names no seed"),
        ("config.yaml", None, "damaged", "config.yaml is missing"),
        ("summary.json", "{", "interrupted", "summary.json is damaged"),
        ("summary.json", "[1]", "interrupted", "summary.json is damaged: it holds no mapping"),
        ("evaluation.json", "no", "finished", "evaluation.json is damaged"),
    ],
)
def test_damaged_files_are_remarked_and_the_rest_is_read(tmp_path, file, text, state, remark):
    folder = agent_run(tmp_path / "run", 0, {100: 1.0})
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    found = read_run(folder)
    assert found.state == state
    assert any(remark in line for line in found.remarks), found.remarks
    assert bool(found.lines) == (state != "damaged")


def test_lines_are_read_up_to_a_damaged_one_and_a_line_being_written_is_none(tmp_path):
    folder = agent_run(tmp_path / "run", 0, {100: 1.0})
    metrics = folder / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole + '{"step": 200, "eval')
    found = read_run(folder)
    assert (len(found.lines), found.remarks) == (2, ())
    for damaged in ('{"step": "x"}', "\0\0", "[]", '{"return": 3}'):
        metrics.write_text(f'{whole}{damaged}\n{{"step": 300}}\n')
        found = read_run(folder)
        assert [line["step"] for line in found.lines] == [100, 100]
        assert found.remarks == ("metrics.jsonl is damaged from line 3 on",)


def test_results_of_eval_agent_are_no_run(tmp_path):
    folder = write(tmp_path / "eval-001", {"agent": "mpc", "seed": 0}, [], {"returns": [1.0]})
    (folder / ".lock").unlink()
    (folder / "metrics.jsonl").unlink()
    assert not is_run(folder)


def test_the_row_of_reproduce_dynamics_is_that_of_its_folder(tmp_path):
    folder = model_run(tmp_path / "Hopper-v5/nll-wide-1", 1, 0.5)
    table = tmp_path / "dynamics.csv"
    table.write_text(
        "environment,objective,seed,mse,open_loop,open_loop_steps\n"
        "Hopper-v5,nll-wide,0,9,9,9\nAnt-v5,nll-wide,1,9,9,9\n"
        "Hopper-v5,nll,1,9,9,9\nHopper-v5,nll-wide,1,0.25,0.75,10\n"
    )
    expected = {"seed": 1, "mse": 0.25, "open_loop": 0.75, "open_loop_steps": 10}
    assert read_run(folder).second == expected
    table.write_text("environment,objective,seed,mse\nHopper-v5,nll-wide,1,many\n")
    found = read_run(folder)
    assert found.second == {}
    assert "dynamics.csv is damaged" in found.remarks[0]


def test_only_finite_numbers_are_numbers():
    assert [number(v) for v in (2, 0.5, True, "3", None, float("nan"), float("inf"), [1])] == [
        *(2.0, 0.5),
        *[None] * 6,
    ]
