"""The loop of a sweep, with trials that end as a script says."""

from pathlib import Path

import pytest

from mbrl_bilevel.scripts.sweeps.run_trial import Order, Report
from mbrl_bilevel.scripts.sweeps.schedule import Schedule, run_all
from mbrl_bilevel.scripts.sweeps.trial import trials_of

MODEL = {"command": "train-model", "dataset": "a/b-v0"}


class Scripted:
    """Trials that end one by one, the oldest first; `ends` are states other than finished."""

    def __init__(self, capacity, ends=()):
        self.slots, self.ends = capacity, dict(ends)
        self.running, self.started, self.most = [], [], 0

    def capacity(self):
        return self.slots

    def start(self, order):
        self.running.append(order.name)
        self.started.append(order.name)
        self.most = max(self.most, len(self.running))

    def ended(self, seconds):
        if not self.running:
            return []
        name = self.running.pop(0)
        state = self.ends.pop(name, "finished")
        return [Report(name, state, "why" if state == "failed" else "")]

    def stop(self):
        """Nothing runs on."""


def order(trial):
    return Order(trial.name, [], Path(), True, Path(), 1, "", "")


def run(stage, scripted, concurrent=None):
    schedule = Schedule(trials_of([MODEL | stage], 0))
    changes = []
    run_all(
        schedule,
        scripted,
        order,
        concurrent=concurrent,
        on_change=lambda: changes.append(schedule.count("finished")),
        on_tick=lambda: None,
    )
    return schedule, changes


SEEDS = {"seed": ["0", "1", "2", "3"]}


@pytest.mark.parametrize(("concurrent", "most"), [(None, 3), (2, 2), (9, 4)])
def test_as_many_run_as_the_nodes_hold_or_as_are_asked_for(concurrent, most):
    scripted = Scripted(3)
    schedule, changes = run(SEEDS, scripted, concurrent)
    assert scripted.most == most
    assert changes == [1, 2, 3, 4]
    assert scripted.started == [trial.name for trial in schedule.trials]


def test_what_follows_a_run_starts_after_it_and_is_skipped_where_it_failed():
    follows = {"then": {"command": "train-agent", "then": {"command": "eval-agent"}}}
    scripted = Scripted(9, {"seed=1": "failed"})
    schedule, _ = run({"seed": ["0", "1"]} | follows, scripted)
    assert scripted.started == [
        *("seed=0", "seed=1", "seed=0,train-agent", "seed=0,train-agent,eval-agent"),
    ]
    standings = schedule.standings
    assert (standings["seed=1"].state, standings["seed=1"].sentence) == ("failed", "why")
    assert standings["seed=1,train-agent"].sentence == "seed=1 failed"
    last = standings["seed=1,train-agent,eval-agent"]
    assert (last.state, last.sentence) == ("skipped", "seed=1,train-agent skipped")


def test_a_trial_that_was_stopped_by_its_node_starts_again():
    scripted = Scripted(1, {"seed=1": "stopped"})
    schedule, changes = run({"seed": ["0", "1"]}, scripted)
    assert scripted.started == ["seed=0", "seed=1", "seed=1"]
    assert schedule.count("finished") == 2
    assert changes == [1, 1, 2]


def test_models_are_evaluated_one_evaluation_at_a_time():
    """Each writes to the folder of its model; evaluations of others run beside it."""
    stage = {"seed": ["0", "1"], "then": [{"command": "eval-model"}, {"command": "eval-model"}]}
    scripted = Scripted(9)
    running = []
    start = scripted.start

    def noted(order):
        start(order)
        running.append([name for name in scripted.running if "eval" in name])

    scripted.start = noted
    run(stage, scripted)
    assert len(scripted.started) == 6
    for names in running:
        models = [name.split(",")[0] for name in names]
        assert len(models) == len(set(models))
    assert max(map(len, running)) == 2


def test_finished_trials_are_not_started():
    schedule = Schedule(trials_of([MODEL | SEEDS], 0))
    for name in ("seed=0", "seed=2"):
        schedule.set(name, "finished")
    scripted = Scripted(9)
    run_all(schedule, scripted, order, concurrent=1, on_change=lambda: None, on_tick=lambda: None)
    assert scripted.started == ["seed=1", "seed=3"]
    assert schedule.over
