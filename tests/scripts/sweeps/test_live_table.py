"""What is shown of a sweep, as a table and as lines."""

import json

from mbrl_bilevel.scripts.sweeps.folder import SweepFolder
from mbrl_bilevel.scripts.sweeps.live_table import LiveTable
from mbrl_bilevel.scripts.sweeps.schedule import Schedule
from mbrl_bilevel.scripts.sweeps.trial import trials_of

STAGE = {
    "command": "train-model",
    "dataset": "a/b-v0",
    "seed": ["0", "1", "2"],
    "then": {"command": "eval-model"},
}


class Sweep:
    def __init__(self, path, live):
        self.now = 0.0
        self.folder = SweepFolder(path)
        self.folder.make({})
        self.schedule = Schedule(trials_of([STAGE], 0))
        steps = {trial.name: 4000 for trial in self.schedule.trials}
        self.table = LiveTable(self.folder, self.schedule, steps, live, lambda: self.now)

    def log(self, name, *lines):
        self.folder.run(name).mkdir(parents=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.folder.run(name) / "metrics.jsonl").write_text(text)

    def finish(self, name, results):
        found = {"results": results, "starts": 1}
        self.folder.result(name).write_text(json.dumps(found))
        self.schedule.set(name, "finished")


def test_rows_tell_state_progress_and_metric_those_that_run_first(tmp_path):
    sweep = Sweep(tmp_path, True)
    sweep.finish("seed=0", {"steps": 1200, "test": {"nll": 0.25, "rmse": 0.5}})
    sweep.schedule.set("seed=1", "failed", "no memory")
    sweep.schedule.set("seed=2", "running")
    sweep.log("seed=2", {"step": 200, "held_out/nll": 0.125}, {"step": 400, "train/loss": 1.0})
    sweep.now = 3661.0
    counts, head, *rows = sweep.table.lines(20)
    assert counts == ("6 trials: 1 running, 1 failed, 1 skipped, 1 finished, 2 waiting   1:01:01")
    assert head.split() == ["state", "progress", "metric", "trial"]
    assert [row.split() for row in rows] == [
        ["running", "400/4,000", "held_out/nll", "0.125", "seed=2"],
        ["failed", "seed=1:", "no", "memory"],
        ["skipped", "seed=1,eval-model:", "seed=1", "failed"],
        ["finished", "1,200", "test_nll", "0.25,", "test_rmse", "0.5", "seed=0"],
        ["waiting", "seed=0,eval-model"],
        ["waiting", "seed=2,eval-model"],
    ]
    short = sweep.table.lines(5)
    assert len(short) == 5
    assert short[-1] == "and 4 more"


def test_a_table_is_drawn_in_its_place_and_fits_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LINES", "6")
    monkeypatch.setenv("COLUMNS", "30")
    sweep = Sweep(tmp_path, True)
    sweep.table.show()
    first = capsys.readouterr().err
    sweep.table.show()
    second = capsys.readouterr().err
    assert first.count("\n") == second.count("\n") == 5
    assert "\x1b[5A" in second
    assert "\x1b[5A" not in first
    assert max(len(line) for line in first.replace("\x1b[0J", "").split("\n")) <= 29


def test_lines_tell_changes_once_and_progress_now_and_then(tmp_path, capsys):
    sweep = Sweep(tmp_path, False)

    def told():
        sweep.table.show()
        return capsys.readouterr().err.splitlines()

    assert told() == []
    sweep.schedule.set("seed=0", "running")
    assert told() == ["running  seed=0"]
    assert told() == []
    sweep.log("seed=0", {"step": 200, "held_out/nll": 0.125})
    sweep.now = 301.0
    counts, progress = told()
    assert counts.startswith("6 trials: 1 running")
    assert progress == "running  seed=0  200/4,000  held_out/nll 0.125"
    assert told() == []
    sweep.finish("seed=0", {"steps": 4000, "test": {"nll": 0.25}})
    (line,) = told()
    assert line.startswith("finished  seed=0  4,000  test_nll 0.25   (6 trials: 1 finished")
    sweep.schedule.set("seed=1", "failed", "no memory")
    assert [line.split("   (")[0] for line in told()] == [
        "failed  seed=1: no memory",
        "skipped  seed=1,eval-model: seed=1 failed",
    ]
