"""Ensembles of two means: their blend against its formula, copies, a gate worth learning."""

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.models.two_means import TwoMeanEnsemble
from mbrl_bilevel.objectives.outer_data import OuterBatches, OuterData
from mbrl_bilevel.objectives.two_level import TwoLevel
from mbrl_bilevel.objectives.two_means import TwoMeanRegression
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def two_means(members=3, **arguments):
    return TwoMeanEnsemble(2, 2, members=members, hidden=(16, 16), generator=seeded(), **arguments)


def test_the_mean_is_the_blend_and_the_noise_the_side_networks():
    net, x = two_means(), torch.randn(5, 2, generator=seeded())
    first, second = net.means(x)
    net.side.gate.weight.normal_(0.0, 0.2, generator=seeded(2))
    log_std, gate = net.side.noise_and_gate(x)
    read = torch.cat([net.side.features(x), log_std + 2.0], -1)
    linear = torch.einsum("ebn,enm->ebm", read, net.side.gate.weight)
    torch.testing.assert_close(gate, torch.sigmoid(linear + net.side.gate.bias))
    torch.testing.assert_close(net(x).mean, gate * first + (1 - gate) * second)
    assert ((gate > 0.01) & (gate < 0.99)).all()
    torch.testing.assert_close(net(x).log_std, log_std)


def test_the_gate_never_moves_the_noise():
    """A gate that could would trade likelihood of the noise for the blend of the means."""
    net, x = two_means(), torch.randn(5, 2, generator=seeded())
    side = net.side_network(1, seeded(7))
    side.noise_and_gate(x)[1].sum().backward()
    assert all(layer.weight.grad is None for layer in side.layers)
    assert side.gate.bias.grad is not None


def test_every_member_adopts_a_copy_of_the_learned_side_network():
    net, x = two_means(), torch.randn(5, 2, generator=seeded())
    learned = net.side_network(1, seeded(7))
    learned.gate.weight.data.normal_(generator=seeded(8))
    net.adopt(learned)
    for ours, theirs in zip(net.side.noise_and_gate(x), learned.noise_and_gate(x), strict=True):
        torch.testing.assert_close(ours, theirs.expand(3, -1, -1))
    assert not any(p.requires_grad for p in net.side.parameters())


def test_layer_norm_and_dropout_are_those_of_both_means():
    x = torch.randn(5, 2, generator=seeded())
    plain, normalised = two_means(), two_means(layer_norm=True, dropout=0.3)
    expected = normalised.means(x)
    for found, other in zip(expected, plain.means(x), strict=True):
        assert not torch.allclose(found, other)
    log_std, gate = normalised.side.noise_and_gate(x)
    with normalised.dropping_out(seeded()):
        for found, other in zip(normalised.means(x), expected, strict=True):
            assert not torch.allclose(found, other)
        for found, other in zip(normalised.side.noise_and_gate(x), (log_std, gate), strict=True):
            assert torch.equal(found, other)
    assert all(map(torch.equal, normalised.means(x), expected))


def test_constant_noise_is_refused():
    with pytest.raises(InputError, match="function of the input; choose --noise input"):
        two_means(noise="constant")


def test_members_can_be_selected_and_models_saved(tmp_path):
    net, x = two_means(), torch.randn(5, 2, generator=seeded())
    chosen = net.select(torch.tensor([2, 0]))
    torch.testing.assert_close(chosen(x).mean, net(x).mean[[2, 0]])
    model = DynamicsModel(
        3, 1, ModelSettings(members=2, hidden=(8, 8)), kind="two_means", generator=seeded()
    )
    model.save(tmp_path)
    loaded = DynamicsModel.load(tmp_path)
    obs, act = torch.randn(4, 3), torch.randn(4, 1)
    assert isinstance(loaded.network, TwoMeanEnsemble)
    # Models of version 0.1, and of early 0.2, say so by another key.
    said = (tmp_path / "model.yaml").read_text()
    (tmp_path / "model.yaml").write_text(said.replace("kind: two_means", "gated: true"))
    assert isinstance(DynamicsModel.load(tmp_path).network, TwoMeanEnsemble)
    assert torch.equal(loaded.predict(obs, act).mean, model.predict(obs, act).mean)


def test_a_full_covariance_and_a_plain_model_are_refused():
    with pytest.raises(InputError, match="diagonal"):
        two_means(covariance="full")
    with pytest.raises(InputError, match="two means"):
        TwoMeanRegression(GaussianEnsemble(2, 2))


def test_gradients_of_both_means_are_those_of_mse_and_of_nll():
    """b = 1 gives the first mean half the gradient of MSE, b = 0 the second that of NLL."""
    net, g = two_means(members=1), seeded()
    inner = TwoMeanRegression(net, generator=seeded(3))
    x, y = torch.randn(1, 6, 2, generator=g), torch.randn(1, 6, 2, generator=g)
    inner(net, x, y)[0].sum().backward()
    first, second = (m.detach().requires_grad_() for m in net.means(x))
    variance = torch.exp(2 * inner.side.noise_and_gate(x)[0]).detach()
    (0.5 * (first - y).square()).sum(-1).mean().backward()
    (0.5 * (second - y).square() / variance).sum(-1).mean().backward()
    bias = [net.network.layers[-1].bias.grad, net.second.layers[-1].bias.grad]
    torch.testing.assert_close(bias[0].squeeze(), first.grad.sum((0, 1)))
    torch.testing.assert_close(bias[1].squeeze(), second.grad.sum((0, 1)))


def test_the_outer_level_finds_the_noise_and_trusts_the_better_mean_by_it():
    """The first mean is right where the noise is large, the second where it is small."""
    g = seeded()
    x = torch.randn(4000, 2, generator=g)
    noisy = (x[:, :1] < 0).float()
    std = (0.05 + 0.45 * noisy).expand(-1, 2)
    y = x + std * torch.randn(4000, 2, generator=g)
    net = two_means(members=2)

    class Means(TwoMeanEnsemble):
        def means(self, x):
            truth = x.expand(2, *x.shape[-2:]) if x.ndim == 2 else x
            here = (truth[..., :1] < 0).float()
            return truth + 0.3 * (1 - here), truth + 0.3 * here

    net.__class__ = Means
    inner = TwoMeanRegression(net, generator=seeded(3))
    outer = OuterData(OuterBatches(x, y, torch.arange(4000).expand(2, -1), 256, seeded(4)))
    objective = TwoLevel(inner, outer, every=1, learning_rate=0.01, steps=600)
    for step in range(1, 601):
        objective.after_step(net, (x.expand(2, -1, -1), y.expand(2, -1, -1)), step, g)
    log_std, gate = inner.side.noise_and_gate(x)
    clear = x[:, 0].abs() > 0.2
    assert ((gate[0, clear] > 0.5).float() == noisy[clear]).float().mean() > 0.99
    for part in (noisy[:, 0] > 0, noisy[:, 0] == 0):
        found = log_std[0, clear & part].exp().median(0).values
        torch.testing.assert_close(found, std[clear & part][0], rtol=0.2, atol=0)


def test_a_gated_fit_leaves_the_learned_side_network_in_the_model():
    g = seeded()
    x = torch.randn(600, 2, generator=g)
    data = Samples(x, x + 0.1 * torch.randn(600, 2, generator=g))
    net = two_means(members=2)
    inner = TwoMeanRegression(net, generator=seeded(3))
    outer = OuterData(OuterBatches(*data, torch.arange(600).expand(2, -1), 128, seeded(4)))
    objective = TwoLevel(inner, outer, every=1, learning_rate=0.01, steps=800)
    fit_network(
        net,
        objective,
        data,
        data,
        generator=seeded(),
        settings=FitSettings(steps=800, patience=None, learning_rate=0.01),
    )
    assert net(x).std.mean().item() == pytest.approx(0.1, rel=0.25)
    assert (net(x).mean - x).square().mean().item() < 0.1**2


def test_a_gate_without_hidden_layers_reads_the_input():
    network = TwoMeanEnsemble(
        3, 2, members=2, hidden=(), generator=torch.Generator().manual_seed(0)
    )
    gaussian = network(torch.randn(5, 3))
    assert gaussian.mean.shape == gaussian.std.shape == (2, 5, 2)
