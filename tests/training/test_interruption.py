"""Signals: the step is finished, the state kept, and nothing of it shows in the end."""

import json
import os
import signal
import threading

import pytest
import torch

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.interruption import Interrupted, Interruption, sigterm_interrupts
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings


class Signalled(NLL):
    """NLL that is sent a signal in the midst of certain steps."""

    def __init__(self, number, *steps):
        self.number, self.steps, self.step = number, steps, 0

    def __call__(self, *arguments):
        self.step += 1
        if self.step in self.steps:
            os.kill(os.getpid(), self.number)
        return super().__call__(*arguments)


def seeded():
    return torch.Generator().manual_seed(0)


def train(folder, objective, resume=False):
    x = torch.randn(200, 2, generator=seeded())
    data = Samples(x, x @ torch.tensor([[1.0], [2.0]]))
    network = GaussianEnsemble(2, 1, members=3, hidden=(8,), generator=seeded())
    with RunFolder(folder, {}, resume=resume) as run:
        fit_network(
            network,
            objective,
            data,
            data,
            generator=seeded(),
            run=run,
            settings=FitSettings(steps=50, evaluate_every=10, batch_size=32),
        )
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    for line in metrics:
        del line["train/steps_per_second"]
    return list(network.parameters()), metrics


@pytest.mark.parametrize("step", [1, 24, 30, 50])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_fit_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path, number, step):
    """Between evaluations, at one, and at the end; the averages since the last one included."""
    weights, metrics = train(tmp_path / "whole", NLL())
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"at step {step}; the checkpoint of step {step}") as end:
        train(tmp_path / "stopped", Signalled(number, step))
    assert end.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    again, metrics_again = train(tmp_path / "stopped", NLL(), resume=True)
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    assert metrics_again == metrics


def test_a_second_ctrl_c_acts_at_once():
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal == signal.SIGINT
        os.kill(os.getpid(), signal.SIGTERM)  # still finishing
        with pytest.raises(KeyboardInterrupt) as end:
            os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(end.value, Interrupted)


def test_another_thread_than_the_main_one_leaves_signals_alone():
    before, inside = signal.getsignal(signal.SIGINT), []

    def work():
        with Interruption() as interruption, sigterm_interrupts():
            inside.append((signal.getsignal(signal.SIGINT), interruption.signal))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(before, None)]


def test_sigterm_outside_of_a_loop_interrupts_too():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"^interrupted by SIGTERM$") as end, sigterm_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
    assert end.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
