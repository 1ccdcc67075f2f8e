"""Ensembles with a noise network of their own: what is predicted, saved, selected and counted."""

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.separate_noise import SeparateNoiseEnsemble
from mbrl_bilevel.models.settings import ModelSettings


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(**options):
    return SeparateNoiseEnsemble(3, 2, members=3, hidden=(8, 6, 4), generator=seeded(), **options)


def test_mean_and_noise_are_those_of_the_two_networks():
    net, x = network(), torch.randn(5, 3, generator=seeded())
    torch.testing.assert_close(net(x).mean, net.network(x))
    torch.testing.assert_close(net(x).log_std, net.side.log_std(x))
    chosen = net.select(torch.tensor([2, 0]))
    torch.testing.assert_close(chosen(x).mean, net(x).mean[[2, 0]])
    torch.testing.assert_close(chosen(x).log_std, net(x).log_std[[2, 0]])


def test_the_members_share_one_noise_which_is_counted_once():
    net = network()
    net.adopt(net.side_network(1, seeded(1)))
    log_std = net(torch.randn(5, 3, generator=seeded())).log_std
    assert torch.equal(log_std[0], log_std[2])
    mean = (3 * 8 + 8) + (8 * 6 + 6) + (6 * 4 + 4) + (4 * 2 + 2)
    noise = (3 * 8 + 8) + (8 * 6 + 6) + (6 * 2 + 2)
    assert net.parameter_count == 3 * mean + noise
    plain = GaussianEnsemble(3, 2, members=3, hidden=(8,), generator=seeded())
    assert plain.parameter_count == 3 * ((3 * 8 + 8) + (8 * 4 + 4))


def test_a_model_of_this_kind_is_saved_and_loaded(tmp_path):
    size = ModelSettings(members=2, hidden=(8, 8))
    model = DynamicsModel(3, 1, size, kind="separate_noise", generator=seeded())
    model.save(tmp_path)
    loaded = DynamicsModel.load(tmp_path)
    assert isinstance(loaded.network, SeparateNoiseEnsemble)
    obs, act = torch.randn(4, 3, generator=seeded()), torch.randn(4, 1, generator=seeded())
    assert torch.equal(loaded.predict(obs, act).std, model.predict(obs, act).std)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"covariance": "full"}, "diagonal covariance"), ({"noise": "constant"}, "--noise input")],
)
def test_other_covariances_and_a_constant_noise_are_refused(options, words):
    with pytest.raises(InputError, match=f"model of separate noise .*{words}"):
        network(**options)
