"""The loop that trains agents: what it logs, when it saves, how it ends."""

import json
import os
import signal
from functools import partial

import pytest
import torch

from mbrl_bilevel.agents.learning import learn
from mbrl_bilevel.agents.policy_evaluation import PolicyEvaluation
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.training.checkpoint import load_checkpoint, save_checkpoint
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.interruption import Interrupted
from mbrl_bilevel.training.run_folder import RunFolder
from tests.agents.small_agents import mbpo


class Counting:
    """A learner that counts; `at` maps steps to what happens in them."""

    def __init__(self, steady_every=1, at=None, acts=True):
        self.step, self.steady_every, self.at, self.acts = 0, steady_every, at or {}, acts
        self.since, self.pace = 0, 1.0

    @property
    def slowed(self):
        return self.pace != 1.0

    def scale_learning_rate(self, factor):
        self.pace *= factor

    @property
    def steady(self):
        return self.step % self.steady_every == 0

    def train_step(self):
        self.step += 1
        self.since += 1
        self.at.get(self.step, lambda: None)()

    def metrics(self):
        found, self.since = {"steps": float(self.since)}, 0
        return found

    def policy(self):
        return {"step": self.step} if self.acts else None

    def save(self, folder):
        counts = torch.tensor([self.step, self.since])
        save_checkpoint(folder, {"counts": counts, "pace": torch.tensor(self.pace)}, {})

    def load(self, folder):
        loaded = load_checkpoint(folder, "cpu")
        if loaded is not None:
            self.step, self.since = loaded[0]["counts"].tolist()
            self.pace = float(loaded[0]["pace"])


class Played(PolicyEvaluation):
    """An evaluation whose return is the step; nothing is played."""

    def __init__(self):
        self.waiting = None

    def start(self, step, weights):
        assert self.waiting is None
        assert weights == {"step": step}
        self.waiting = step, {"evaluation/return": float(step), "evaluation/return_std": 0.0}

    def collect(self):
        found, self.waiting = self.waiting, None
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def train(folder, learner, *, resume=False, steps=12, seconds=1e9):
    with RunFolder(folder, {}, resume=resume) as run:
        return learn(
            learner, run, Played(), steps=steps, log_every=4, evaluate_every=3, resume=resume,
            checkpoint_seconds=seconds,
        )  # fmt: skip


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("time/steps_per_second", None)
    return lines


def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)


def test_metrics_evaluations_and_the_last_checkpoint(tmp_path):
    last = train(tmp_path, Counting())
    assert last == {"evaluation/return": 12.0, "evaluation/return_std": 0.0}
    told = [(line["step"], line.get("steps", line.get("evaluation/return"))) for line in
            metrics(tmp_path)]  # fmt: skip
    assert told == [(3, 3.0), (4, 4.0), (6, 6.0), (8, 4.0), (9, 9.0), (12, 4.0), (12, 12.0)]
    again = Counting()
    again.load(tmp_path)
    assert again.step == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 3, 4, 7, 12])
def test_an_interrupted_run_logs_what_an_uninterrupted_one_logs(tmp_path, number, step):
    train(tmp_path / "whole", Counting())
    cut = tmp_path / "cut"
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"at step {step}; the checkpoint of step {step}"):
        train(cut, Counting(at={step: partial(interrupt, number)}))
    assert signal.getsignal(number) is before
    last = train(cut, Counting(), resume=True)
    assert last["evaluation/return"] == 12.0
    assert metrics(cut) == metrics(tmp_path / "whole")


def test_a_learner_that_is_not_steady_goes_on_until_it_is(tmp_path):
    with pytest.raises(Interrupted, match="at step 10; the checkpoint of step 10"):
        train(tmp_path, Counting(steady_every=5, at={6: interrupt}))


def test_checkpoints_are_of_steady_steps_but_for_the_last(tmp_path, monkeypatch):
    saved, save = [], Counting.save

    def spy(learner, folder):
        saved.append(learner.step)
        save(learner, folder)

    monkeypatch.setattr(Counting, "save", spy)
    train(tmp_path, Counting(steady_every=5), seconds=-1.0)
    assert saved == [5, 10, 12]


def test_a_second_ctrl_c_does_not_wait_for_a_steady_step(tmp_path):
    learner = Counting(steady_every=100, at={2: interrupt, 4: interrupt})
    with pytest.raises(KeyboardInterrupt) as end:
        train(tmp_path, learner)
    assert not isinstance(end.value, Interrupted)
    assert learner.step == 4


def test_a_lost_training_names_the_checkpoint_that_is_kept(tmp_path):
    def lose():
        raise TrainingDiverged("lost")

    with pytest.raises(TrainingDiverged, match=r"^lost; no checkpoint was written before$"):
        train(tmp_path / "early", Counting(at={5: lose}))
    with (
        pytest.raises(TrainingDiverged, match=r"^lost; the checkpoint of step 4, .* is kept$"),
        pytest.warns(UserWarning, match="^lost; going on from step 4 at 0.1 of the learning rate"),
    ):
        train(tmp_path / "late", Counting(at={5: lose}), seconds=-1.0)


def test_training_goes_back_once_and_logs_nothing_of_what_was_lost(tmp_path):
    train(tmp_path / "whole", Counting())
    lost = iter([True])

    def lose():
        if next(lost, False):
            raise TrainingDiverged("lost")

    learner = Counting(steady_every=2, at={7: lose})
    with pytest.warns(UserWarning, match="^lost; going on from step 6 at"):
        train(tmp_path / "back", learner, seconds=-1.0)
    assert learner.pace == 0.1
    assert metrics(tmp_path / "back") == metrics(tmp_path / "whole")
    again = Counting()
    again.load(tmp_path / "back")
    assert again.slowed


def test_what_cannot_be_saved_is_lost_too(tmp_path, monkeypatch):
    def refuse(learner, folder):
        raise TrainingDiverged("not finite")

    monkeypatch.setattr(Counting, "save", refuse)
    with pytest.raises(TrainingDiverged, match=r"^not finite; no checkpoint"):
        train(tmp_path, Counting())


def test_a_finished_run_is_evaluated_again_and_nothing_else(tmp_path):
    train(tmp_path, Counting())
    before = metrics(tmp_path)
    last = train(tmp_path, Counting(at={13: interrupt}), resume=True)
    assert last["evaluation/return"] == 12.0
    assert metrics(tmp_path) == before


def test_an_agent_without_a_policy_is_not_evaluated(tmp_path):
    assert train(tmp_path, Counting(acts=False)) == {}
    assert [line["step"] for line in metrics(tmp_path)] == [4, 8, 12]


def test_a_checkpoint_of_another_run_is_one_sentence(tmp_path):
    train(tmp_path, Counting())
    save_checkpoint(tmp_path, {"else": torch.zeros(1)}, {})
    with pytest.raises(InputError, match="is of another run or device"):
        train(tmp_path, Counting(), resume=True)


def test_ctrl_c_amid_a_fit_of_the_model_ends_the_step_and_keeps_it(tmp_path):
    """The fit is finished first: a policy that goes on from there is the uninterrupted one's."""

    def build(interrupts=False):
        agent = mbpo(real_ratio=0.5)
        fit = agent.fits.fit_to

        def interrupted(data):
            interrupt()
            return fit(data)

        agent.fits.fit_to = interrupted if interrupts else fit
        return agent

    whole, cut = build(), build(interrupts=True)
    whole.policy = cut.policy = lambda: None
    train(tmp_path / "whole", whole, steps=104)
    with pytest.raises(Interrupted, match="at step 102; the checkpoint of step 102"):
        train(tmp_path / "cut", cut, steps=104)
    again = build()
    again.policy = lambda: None
    train(tmp_path / "cut", again, steps=104, resume=True)
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    one, other = whole.state(), again.state()
    assert all(torch.equal(one[name], other[name]) for name in one)
