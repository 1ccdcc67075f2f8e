"""The loop that trains agents: what it logs, when it saves, how it ends."""

import signal
from functools import partial

import pytest
import torch

from mbrl_bilevel.agents.learner_state import state_of
from mbrl_bilevel.agents.learning import learn
from mbrl_bilevel.agents.policy_evaluation import PolicyEvaluation
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.training.checkpoint import save_checkpoint
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.interruption import Interrupted
from mbrl_bilevel.training.run_folder import RunFolder
from tests.agents.small_agents import mbpo
from tests.training.counting import Counting, interrupt, metrics


class Played(PolicyEvaluation):
    """An evaluation whose return is the step; nothing is played."""

    def __init__(self):
        self.waiting = None

    def start(self, step, weights, critics=None):
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
            learner, run, Played(), steps=steps, log_every=4, evaluate_every=3,
            checkpoint_seconds=seconds,
        )  # fmt: skip


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


def test_training_goes_back_once_and_logs_nothing_of_what_was_lost(tmp_path):
    train(tmp_path / "whole", Counting())
    lost = iter([True])

    def lose():
        if next(lost, False):
            raise TrainingDiverged("lost")

    learner = Counting(save_every=2, at={7: lose})
    with pytest.warns(UserWarning, match="^lost; going on from step 6 at"):
        train(tmp_path / "back", learner, seconds=-1.0)
    assert learner.pace == 0.1
    assert metrics(tmp_path / "back") == metrics(tmp_path / "whole")
    again = Counting()
    again.load(tmp_path / "back")
    assert again.learning_rate_scaled


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
    one, other = state_of(whole), state_of(again)
    assert all(torch.equal(one[name], other[name]) for name in one)
