"""A training that diverges: steps skipped, one rollback, then one sentence; nothing spoilt."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.training.checkpointer import Checkpointer
from mbrl_bilevel.training.divergence import RUN, TrainingDiverged, likely_cause
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings


def seeded():
    return torch.Generator().manual_seed(0)


class Astray(NLL):
    """NLL until a step at which `spoil` acts on the network, the first `times` it comes there."""

    def __init__(self, at, spoil, times=2):
        self.at, self.spoil, self.left = at, spoil, times

    def after_step(self, network, batch, step, generator):
        if step == self.at and self.left:
            self.left -= 1
            with torch.no_grad():
                self.spoil(self, network)
        return {"odd": torch.tensor(step % 2), "half": torch.tensor(0.5)}

    def state(self):
        return {"own": getattr(self, "own", torch.zeros(2))}

    def load_state(self, state):
        self.own = state["own"]


class Spoilt(NLL):
    """NLL whose loss, or whose gradient alone, is not finite for one member in certain steps."""

    def __init__(self, member, steps, what="loss"):
        self.member, self.steps, self.what, self.step = member, steps, what, 0

    def __call__(self, network, x, y, generator):
        loss, metrics = super().__call__(network, x, y, generator)
        self.step += 1
        if self.step in self.steps:
            factor = torch.ones(network.members)
            factor[self.member] = torch.nan
            if self.what == "loss":
                return loss * factor, metrics
            loss.register_hook(lambda gradient: gradient * factor)
        return loss, metrics


def nan_in_member_1(objective, network):
    network.network.layers[0].weight[1, 0, 0] = torch.nan


def explode(objective, network):
    network.network.layers[-1].weight.mul_(1e9)


def own_state(objective, network):
    objective.own = torch.tensor([0.0, torch.inf])


def train(tmp_path, objective, resume=False, steps=60, folder="run", seconds=0.0):
    x = torch.randn(200, 2, generator=seeded())
    data = Samples(x, x @ torch.tensor([[1.0], [2.0]]))
    network = GaussianEnsemble(2, 1, members=3, hidden=(8,), generator=seeded())
    with RunFolder(tmp_path / folder, {}, resume=resume) as run:
        fit_network(
            network,
            objective,
            data,
            data,
            generator=seeded(),
            run=run,
            checkpoint_seconds=seconds,
            settings=FitSettings(steps=steps, batch_size=32, evaluate_every=10),
        )
    return network


def metrics(tmp_path, folder="run"):
    lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (nan_in_member_1, "by step 30: parameters of member 1 are not finite"),
        (explode, "by step 30: the held-out error of member 0, 1, 2 is without bound"),
        (own_state, "by step 30: the state of the optimiser or of the objective is not finite"),
    ],
)
def test_the_second_time_it_is_said_and_the_checkpoint_from_before_stays(tmp_path, spoil, words):
    with (
        pytest.warns(UserWarning, match=f"{words}.*; going on from step 20 at 0.1 of the learning"),
        pytest.raises(TrainingDiverged, match=words) as found,
    ):
        train(tmp_path, Astray(25, spoil))
    path = tmp_path / "run/checkpoint.safetensors"
    assert str(found.value).endswith(f"; the checkpoint of step 20, {path}, is kept")
    tensors = load_file(path)
    assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())
    train(tmp_path, Astray(25, None, times=0), resume=True)
    assert metrics(tmp_path)[-1]["step"] == 60


@pytest.mark.parametrize("spoil", [nan_in_member_1, explode, own_state])
def test_the_first_time_it_goes_back_and_on_at_a_tenth_of_the_learning_rate(tmp_path, spoil):
    with pytest.warns(UserWarning, match="going on from step 20"):
        train(tmp_path, Astray(25, spoil, times=1))
    train(tmp_path, Astray(25, None, times=0), folder="calm")
    slow, calm = metrics(tmp_path), metrics(tmp_path, "calm")
    assert [line["step"] for line in slow] == [10, 20, 30, 40, 50, 60]
    for line, other in zip(slow, calm, strict=True):
        rate = 0.1 if line["step"] > 20 else 1.0
        assert line["train/learning_rate"] == pytest.approx(rate * other["train/learning_rate"])
    for key in ("held_out/nll", "train/loss"):
        assert [line[key] for line in slow[:2]] == [line[key] for line in calm[:2]]


def test_a_checkpoint_between_evaluations_is_a_rollback_too(tmp_path, monkeypatch):
    """Due at every step, it finds what an evaluation would have found only later."""
    monkeypatch.setattr(Checkpointer, "_is_due", lambda checkpointer, training: True)
    with pytest.warns(UserWarning, match="by step 25: .*; going on from step 20"):
        train(tmp_path, Astray(25, nan_in_member_1, times=1), seconds=1e-9)
    assert metrics(tmp_path)[-1]["step"] == 60


def test_before_the_first_checkpoint_none_is_named(tmp_path):
    with (
        pytest.warns(UserWarning, match="going on from step 0"),
        pytest.raises(TrainingDiverged, match="no checkpoint was written before"),
    ):
        train(tmp_path, Astray(5, nan_in_member_1))
    assert not (tmp_path / "run/checkpoint.safetensors").exists()


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_steps_that_are_not_finite_are_skipped_counted_and_nobody_else_notices(tmp_path, what):
    """Bit for bit: members share batches and the clock, but no number."""
    whole = train(tmp_path, NLL(), folder="whole")
    skipping = train(tmp_path, Spoilt(1, (3, 4, 27), what))
    for a, b in zip(whole.parameters(), skipping.parameters(), strict=True):
        assert torch.equal(a[[0, 2]], b[[0, 2]])
        assert not torch.equal(a[1], b[1])
        assert b.isfinite().all()
    assert [line["train/skipped_steps"] for line in metrics(tmp_path)] == [2, 2, 3, 3, 3, 3]


@pytest.mark.parametrize(("length", "lost"), [(RUN - 1, False), (RUN, True)])
def test_a_run_of_them_means_that_the_member_is_lost(tmp_path, length, lost):
    """Steps 15 to 14 + RUN stand on both sides of an evaluation."""
    objective = Spoilt(2, range(15, 15 + length))
    if not lost:
        train(tmp_path, objective)
        return
    with pytest.warns(UserWarning, match=f"of member 2 was not finite in {RUN} steps running; the"):
        train(tmp_path, objective)
    assert metrics(tmp_path)[-1]["train/skipped_steps"] == RUN


def test_a_run_that_goes_on_names_the_step_at_which_it_began(tmp_path):
    with (
        pytest.warns(UserWarning, match="member 0 was not finite from step 18 on"),
        pytest.raises(TrainingDiverged, match="from step 18 on; the likely cause is a learning r"),
    ):
        train(tmp_path, Spoilt(0, range(18, 1000)))


def test_a_resumed_run_does_not_get_a_second_rollback(tmp_path):
    with pytest.warns(UserWarning, match="going on from step 20"):
        train(tmp_path, Astray(25, explode, times=1), steps=40)
    with pytest.raises(TrainingDiverged, match="by step 60"):
        train(tmp_path, Astray(55, explode), resume=True)


def test_the_likely_cause_is_outliers_where_there_are_any():
    y = torch.randn(100, 2, generator=seeded())
    assert "a learning rate of 0.003, too high" in likely_cause(3e-3, y)
    y[7, 1] = -1e5
    assert "a target lies 1e+05 standard deviations" in likely_cause(3e-3, y)


def test_counts_run_on_and_other_metrics_are_averaged(tmp_path):
    """Odd steps up to a step: half of it. A resumed run goes on from the checkpoint's count."""
    train(tmp_path, Astray(0, None, times=0))
    lines = metrics(tmp_path)
    assert [line["outer/odd"] for line in lines] == [5, 10, 15, 20, 25, 30]
    assert all(line["outer/half"] == 0.5 for line in lines)
