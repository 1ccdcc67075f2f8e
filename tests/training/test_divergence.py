"""A training that goes astray ends with one sentence, and what was saved stays good."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.fit import fit
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.trainer import Samples


def seeded():
    return torch.Generator().manual_seed(0)


class Astray(NLL):
    """NLL until a step at which `spoil` acts on the network."""

    def __init__(self, at, spoil):
        self.at, self.spoil = at, spoil

    def after_step(self, network, step, generator):
        if step == self.at:
            with torch.no_grad():
                self.spoil(self, network)
        return {"odd": torch.tensor(step % 2), "half": torch.tensor(0.5)}

    def state(self):
        return {"own": getattr(self, "own", torch.zeros(2))}

    def load_state(self, state):
        pass


def nan_in_member_1(objective, network):
    network.network.layers[0].weight[1, 0, 0] = torch.nan


def explode(objective, network):
    network.network.layers[-1].weight.mul_(1e9)


def own_state(objective, network):
    objective.own = torch.tensor([0.0, torch.inf])


def train(tmp_path, spoil, at=25, resume=False, steps=60):
    x = torch.randn(200, 2, generator=seeded())
    data = Samples(x, x @ torch.tensor([[1.0], [2.0]]))
    network = GaussianEnsemble(2, 1, members=3, hidden=(8,), generator=seeded())
    with RunFolder(tmp_path / "run", {}, resume=resume) as run:
        fit(
            network, Astray(at, spoil), data, data, generator=seeded(), steps=steps,
            evaluate_every=10, run=run, resume=resume, checkpoint_seconds=0.0,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (nan_in_member_1, "by step 30: parameters of member 1 are not finite"),
        (explode, "by step 30: the held-out error of member 0, 1, 2 is without bound"),
        (own_state, "by step 30: the state of the optimiser or of the objective is not finite"),
    ],
)
def test_it_is_said_and_the_checkpoint_from_before_stays(tmp_path, spoil, words):
    with pytest.raises(TrainingDiverged, match=words) as found:
        train(tmp_path, spoil)
    path = tmp_path / "run/checkpoint.safetensors"
    assert str(found.value).endswith(f"; the checkpoint of step 20, {path}, is kept")
    tensors = load_file(path)
    assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())
    train(tmp_path, lambda objective, network: None, resume=True)
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["step"] == 60


def test_before_the_first_checkpoint_none_is_named(tmp_path):
    with pytest.raises(TrainingDiverged, match="no checkpoint was written before"):
        train(tmp_path, nan_in_member_1, at=5)
    assert not (tmp_path / "run/checkpoint.safetensors").exists()


def test_counts_run_on_and_other_figures_are_averaged(tmp_path):
    """Odd steps up to a step: half of it. A resumed run goes on from the checkpoint's count."""
    train(tmp_path, lambda objective, network: None, steps=60)
    lines = [json.loads(t) for t in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["outer/odd"] for line in lines] == [5, 10, 15, 20, 25, 30]
    assert all(line["outer/half"] == 0.5 for line in lines)


@pytest.mark.parametrize(("name", "value"), [("learning_rate", -1.0), ("clip_norm", 0.0)])
def test_rates_must_be_positive(name, value):
    data = Samples(torch.zeros(4, 2), torch.zeros(4, 1))
    network = GaussianEnsemble(2, 1, members=1, hidden=(4,), generator=seeded())
    with pytest.raises(InputError, match=f"of {value}: choose a number above 0"):
        fit(network, NLL(), data, data, generator=seeded(), steps=1, **{name: value})
