"""Ensembles of natural parameters: what they predict, what moves the mean, what is refused."""

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.natural import NaturalEnsemble
from mbrl_bilevel.models.settings import ModelSettings


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("noise", ["input", "constant"])
def test_the_mean_is_eta1_times_the_variance(noise):
    net = NaturalEnsemble(3, 2, members=2, hidden=(8,), noise=noise, generator=seeded())
    x = torch.randn(5, 3, generator=seeded(1))
    gaussian = net(x)
    eta1 = net.network(x)[..., :2]
    torch.testing.assert_close(gaussian.mean, eta1 * gaussian.std.square())
    net.recalibrate(torch.tensor([2.0, 0.5]))
    again = net(x)
    torch.testing.assert_close(again.mean, gaussian.mean)
    torch.testing.assert_close(again.std, gaussian.std * torch.tensor([2.0, 0.5]))


def test_a_model_of_this_kind_is_saved_and_loaded(tmp_path):
    size = ModelSettings(members=2, hidden=(8,))
    model = DynamicsModel(3, 1, size, kind="natural", generator=seeded())
    model.save(tmp_path)
    loaded = DynamicsModel.load(tmp_path)
    assert isinstance(loaded.network, NaturalEnsemble)
    obs, act = torch.randn(4, 3, generator=seeded()), torch.randn(4, 1, generator=seeded())
    assert torch.equal(loaded.predict(obs, act).mean, model.predict(obs, act).mean)


def test_a_full_covariance_and_sparse_targets_are_refused():
    with pytest.raises(InputError, match="diagonal covariance"):
        NaturalEnsemble(3, 2, covariance="full")
    net = NaturalEnsemble(3, 2, hidden=(8,))
    with pytest.raises(InputError, match="which sparse targets need"):
        net.hold_std(torch.tensor([1]))
    net.hold_std(torch.tensor([], dtype=torch.long))
