"""The training loop: the order of its callbacks, a user's own, and what ends it."""

import pytest

from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.loop import Callback, Trainable, train
from mbrl_bilevel.training.metrics_log import MetricsLog
from mbrl_bilevel.training.rollback import InMemory, Rollback
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.tensorboard import MODEL
from mbrl_bilevel.training.trainer import Trainer
from tests.training.counting import Counting, metrics
from tests.training.test_fit_network import linear_data, network, seeded


class Noting(Callback):
    """Writes down what it is called for, as (own name, hook, step)."""

    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def _note(self, hook, training):
        self.notes.append((self.name, hook, training.step))

    def on_start(self, training):
        self._note("start", training)

    def before_metrics(self, training):
        assert training.metrics is None
        self._note("before metrics", training)

    def after_step(self, training):
        self._note("metrics" if training.metrics else "step", training)

    def on_success(self, training):
        self._note("success", training)

    def __enter__(self):
        self.notes.append((self.name, "enter", None))
        return self

    def __exit__(self, *_):
        self.notes.append((self.name, "exit", None))


def test_callbacks_act_in_their_order_and_are_left_in_the_other():
    notes = []
    train(Counting(), steps=3, metrics_every=2, callbacks=[Noting("a", notes), Noting("b", notes)])
    hooks = ["start 0", "step 1", "before metrics 2", "metrics 2", "before metrics 3", "metrics 3",
             "success 3"]  # fmt: skip
    expected = [(name, "enter", None) for name in "ab"]
    for hook, step in (hook.rsplit(" ", 1) for hook in hooks):
        expected += [(name, hook, int(step)) for name in "ab"]
    assert notes == expected + [(name, "exit", None) for name in "ba"]


def test_metrics_are_of_the_steps_since_the_last_ones():
    found = []

    class Collect(Callback):
        def after_step(self, training):
            if training.metrics is not None:
                found.append((training.step, training.metrics["steps"]))

    train(Counting(), steps=10, metrics_every=4, callbacks=[Collect()])
    assert found == [(4, 4), (8, 4), (10, 2)]


def test_a_callback_of_ones_own_ends_training():
    class UpTo(Callback):
        def after_step(self, training):
            training.stopped = training.step == 5

    learner = Counting()
    train(learner, steps=100, metrics_every=10, callbacks=[UpTo()])
    assert learner.step == 5


def test_what_has_ended_takes_no_step():
    learner, notes = Counting(), []
    learner.step = 12
    train(learner, steps=12, metrics_every=5, callbacks=[Noting("a", notes)])
    assert learner.step == 12
    assert [hook for _, hook, _ in notes] == ["enter", "start", "success", "exit"]


def lose():
    raise TrainingDiverged("lost")


def test_divergence_that_nobody_recovers_from_ends_training_and_callbacks_are_left():
    notes = []
    with pytest.raises(TrainingDiverged, match=r"^lost$"):
        train(Counting(at={3: lose}), steps=9, metrics_every=2, callbacks=[Noting("a", notes)])
    assert notes[-2:] == [("a", "metrics", 2), ("a", "exit", None)]


class Remembering(Counting):
    """Counting that hands out copies of its state."""

    def snapshot(self):
        return self.step, self.since

    def restore(self, snapshot):
        self.step, self.since = snapshot


def test_every_callback_hears_of_a_rollback_and_the_log_forgets_what_was_lost(tmp_path):
    lost, heard = iter([True]), []

    def lose_once():
        if next(lost, False):
            lose()

    class Hear(Callback):
        def on_divergence(self, training, error):
            heard.append((training.step, str(error)))
            return False

    learner = Remembering(at={7: lose_once})
    with RunFolder(tmp_path, {}) as run:
        log = MetricsLog(run, "steps_per_second", MODEL)
        callbacks = [Rollback(InMemory(learner), None), log, Hear()]
        with pytest.warns(UserWarning, match="going on from step 6 at"):
            train(learner, steps=9, metrics_every=3, callbacks=callbacks)
    assert heard == [(6, "lost")]
    assert learner.pace == 0.1
    assert metrics(tmp_path) == [{"step": step, "steps": 3.0} for step in (3, 6, 9)]


def test_without_a_run_the_second_divergence_says_that_nothing_is_kept():
    learner = Remembering(at={5: lose})
    with (
        pytest.warns(UserWarning, match="going on from step 3"),
        pytest.raises(TrainingDiverged, match=r"^lost; no checkpoint was written before$"),
    ):
        train(learner, steps=9, metrics_every=3, callbacks=[Rollback(InMemory(learner), None)])


def test_a_fit_and_the_counter_are_trainable():
    fit = Trainer(network(), NLL(), linear_data(), linear_data(), seeded())
    assert isinstance(Counting(), Trainable)
    assert isinstance(fit, Trainable)
