"""When a training is saved, how a signal ends it, and what is kept of one that is lost."""

import pytest

from mbrl_bilevel.training.checkpointer import Checkpointer
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.interruption import Interrupted, Interruption
from mbrl_bilevel.training.loop import train as train_by
from mbrl_bilevel.training.rollback import InFolder, Rollback
from mbrl_bilevel.training.run_folder import RunFolder
from tests.training.counting import Counting, interrupt


def train(folder, learner, seconds=1e9, steps=12):
    with RunFolder(folder, {}) as run:
        interruption = Interruption()
        checkpointer = Checkpointer(run, seconds, interruption)
        rollback = Rollback(InFolder(learner, checkpointer), checkpointer)
        callbacks = [interruption, rollback, checkpointer]
        train_by(learner, steps=steps, metrics_every=4, callbacks=callbacks)


def test_an_interrupted_training_goes_on_until_it_can_be_saved(tmp_path):
    with pytest.raises(Interrupted, match="at step 10; the checkpoint of step 10"):
        train(tmp_path, Counting(save_every=5, at={6: interrupt}))


def test_checkpoints_are_of_steps_that_can_be_saved_and_of_the_last(tmp_path, monkeypatch):
    saved, save = [], Counting.save

    def spy(learner, folder):
        saved.append(learner.step)
        save(learner, folder)

    monkeypatch.setattr(Counting, "save", spy)
    train(tmp_path, Counting(save_every=5), seconds=-1.0)
    assert saved == [5, 10, 12]


def test_a_second_ctrl_c_does_not_wait_until_it_can_be_saved(tmp_path):
    learner = Counting(save_every=100, at={2: interrupt, 4: interrupt})
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


def test_what_cannot_be_saved_is_lost_too(tmp_path, monkeypatch):
    def refuse(learner, folder):
        raise TrainingDiverged("not finite")

    monkeypatch.setattr(Counting, "save", refuse)
    with pytest.raises(TrainingDiverged, match=r"^not finite; no checkpoint"):
        train(tmp_path, Counting())


def test_zero_seconds_save_whenever_metrics_are_due(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(Counting, "save", lambda learner, folder: saved.append(learner.step))
    train(tmp_path, Counting(), seconds=0.0, steps=10)
    assert saved == [4, 8, 10]
