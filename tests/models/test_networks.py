"""The ensemble of perceptrons against torch's own layers; its dropout against what it promises."""

import math

import pytest
import torch
from torch import nn

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.networks import EnsembleLinear, EnsembleMLP, drop


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def mlp(**options):
    """Three members, 4 inputs, hidden layers of 16 and 8 units, 3 outputs, with biases."""
    network = EnsembleMLP(3, 4, (16, 8), 3, seeded(), **options).double()
    with torch.no_grad():
        for layer in network.linear_layers():
            layer.bias.normal_(generator=seeded(1))
    return network


def separate(network, member, activation, layer_norm):
    """One member as torch's own layers."""
    layers = []
    for layer in network.linear_layers():
        linear = nn.Linear(*layer.weight.shape[1:]).double()
        linear.weight.data, linear.bias.data = layer.weight[member].T, layer.bias[member, 0]
        layers += [linear, activation()]
        if layer_norm:
            layers.append(nn.LayerNorm(linear.out_features, elementwise_affine=False).double())
    return nn.Sequential(*layers[: -2 if layer_norm else -1])


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", [nn.SiLU, nn.ReLU])
def test_members_are_separate_networks_of_torchs_layers(activation, layer_norm):
    network = mlp(activation=activation(), layer_norm=layer_norm)
    x = torch.randn(7, 4, generator=seeded(2)).double()
    out, features = network(x), network.features(x)
    for e in range(3):
        one = separate(network, e, activation, layer_norm)
        torch.testing.assert_close(out[e], one(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(features[e], one[:-1](x), rtol=1e-12, atol=1e-12)


def test_gradients_through_layer_norm_are_torchs():
    network = mlp(layer_norm=True)
    x = torch.randn(7, 4, generator=seeded(2)).double().requires_grad_()
    weight = torch.randn(3, 7, 3, generator=seeded(3)).double()
    (ours,) = torch.autograd.grad((weight * network(x)).sum(), x)
    loss = sum((weight[e] * separate(network, e, nn.SiLU, True)(x)).sum() for e in range(3))
    (theirs,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_weights_start_with_the_deviation_of_lecun():
    layer = EnsembleLinear(5, 100, 200, seeded())
    # 100,000 normal numbers: a relative standard error of 1 / sqrt(200,000); four of them.
    deviation = layer.weight.std().item()
    assert deviation == pytest.approx(0.1, rel=4 / math.sqrt(200_000))
    assert not layer.bias.any()


def test_selected_members_keep_the_options():
    network = mlp(activation=nn.functional.relu, layer_norm=True, dropout=0.5)
    x = torch.randn(7, 4, generator=seeded(2)).double()
    chosen = network.select(torch.tensor([2, 0]))
    assert torch.equal(chosen(x), network(x)[[2, 0]])
    with chosen.dropping_out(seeded()):
        assert not torch.allclose(chosen(x), network(x)[[2, 0]])


def test_members_selected_while_dropout_is_on_predict_without():
    network, x = mlp(dropout=0.5), torch.ones(7, 4).double()
    plain = network(x)
    with network.dropping_out(seeded()):
        chosen = network.select(torch.tensor([1]))
        assert torch.equal(chosen(x), plain[1:2])


def test_without_its_context_dropout_is_off():
    plain, dropping = mlp(layer_norm=True), mlp(layer_norm=True, dropout=0.5)
    x = torch.randn(7, 4, generator=seeded(2)).double()
    expected = plain(x)
    assert torch.equal(dropping(x), expected)
    with dropping.dropping_out(seeded()):
        assert not torch.allclose(dropping(x), expected)
    assert torch.equal(dropping(x), expected)
    with pytest.raises(KeyError), dropping.dropping_out(seeded()):
        raise KeyError
    assert torch.equal(dropping(x), expected)


def test_a_share_of_0_draws_nothing():
    network, generator = mlp(), seeded()
    before = generator.get_state()
    x = torch.randn(7, 4, generator=seeded(2)).double()
    expected = network(x)
    with network.dropping_out(generator):
        assert torch.equal(network(x), expected)
    assert torch.equal(generator.get_state(), before)


def test_its_generator_alone_decides_what_is_dropped():
    network, found = mlp(dropout=0.3), []
    x = torch.randn(7, 4, generator=seeded(2)).double()
    everywhere = torch.get_rng_state()
    for seed in (5, 5, 6):
        with network.dropping_out(seeded(seed)):
            found.append(network(x))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), everywhere)


def test_the_output_layer_reads_what_dropout_has_left():
    """With all hidden units at 1 and weights of 1, an output counts the units that are left."""
    network = EnsembleMLP(2, 1, (50,), 1, activation=torch.ones_like, dropout=0.2)
    with torch.no_grad():
        network.layers[1].weight.fill_(1.0)
    with network.dropping_out(seeded()):
        left = network(torch.zeros(40, 1)) * 0.8
    torch.testing.assert_close(left, left.round(), rtol=0, atol=1e-4)
    # 4,000 units: the share left has a standard error below .4 / sqrt(4,000); four of them.
    assert left.mean().item() / 50 == pytest.approx(0.8, abs=4 * 0.4 / math.sqrt(4000))
    assert left.std() > 0  # rows and members lose different units


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_drops_its_share(share):
    x = torch.ones(4, 100, 250)
    dropped = drop(x, share, seeded())
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / (1 - share)).item()}
    found = (dropped == 0).double().mean().item()
    # At most the deviation of as many independent draws; four standard errors.
    assert found == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / x.numel()))


def test_every_unit_is_dropped_equally_often():
    count, share = 4000, 0.2
    generator, x = seeded(), torch.ones(3, 4, 10)
    often = sum((drop(x, share, generator) == 0).double() for _ in range(count)) / count
    # Of 120 units the largest of the standardised deviations stays below 4.5 in all but 1 of 1,000.
    assert (often - share).abs().max() < 4.5 * math.sqrt(share * (1 - share) / count)


def test_gradients_pass_the_units_that_are_left():
    x = torch.randn(3, 4, 10, generator=seeded(1), dtype=torch.float64).requires_grad_()
    dropped = drop(x, 0.3, seeded())
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    torch.testing.assert_close(gradient, (dropped != 0).double() / 0.7, rtol=1e-12, atol=0)


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(InputError, match="choose a share from 0 to below 1"):
        mlp(dropout=share)


def test_a_hidden_layer_without_units_is_refused():
    with pytest.raises(InputError, match="hidden layers of 8 0 units"):
        EnsembleMLP(3, 4, (8, 0), 3)
