"""Passes without gradients against those with, member by member, in whatever blocks."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from mbrl_bilevel.models import inference
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.inference import InferenceMLP, InferenceNetwork, for_inference
from mbrl_bilevel.models.networks import EnsembleMLP
from mbrl_bilevel.models.two_means import TwoMeanEnsemble
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


ROWS = torch.randn(23, 4, generator=seeded(1)).double()
EACH = torch.randn(3, 23, 4, generator=seeded(2)).double()


@pytest.mark.parametrize("block", [1, 16 * 3 * 5, 10**6])
@pytest.mark.parametrize("activation", [nn.functional.silu, torch.tanh])
@pytest.mark.parametrize(
    ("hidden", "layer_norm"), [((), False), ((16,), True), ((16, 9, 12), False)]
)
@pytest.mark.parametrize("x", [ROWS, EACH], ids=["shared", "each"])
@torch.no_grad()
def test_a_pass_is_that_of_the_network(
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    activation: object,
    hidden: tuple[int, ...],
    layer_norm: bool,
    x: Tensor,
) -> None:
    monkeypatch.setattr(inference, "BLOCK", block)
    network = EnsembleMLP(
        5,
        4,
        hidden,
        3,
        seeded(),
        activation=activation,
        layer_norm=layer_norm,  # type: ignore[arg-type]
    ).double()
    for layer in network.linear_layers():
        layer.bias.normal_(generator=seeded(3))
    for members in ([3, 0, 4], [0, 1, 2, 3, 4]):
        if x.ndim == 3 and len(members) != len(x):
            continue
        fast = InferenceMLP(network, members)
        first = fast(x)
        expected = network.select(torch.tensor(members))(x)
        torch.testing.assert_close(first, expected, rtol=1e-12, atol=1e-12)
        fast(-x)
        torch.testing.assert_close(first, expected, rtol=1e-12, atol=1e-12)  # is not overwritten


@pytest.mark.parametrize("kind", [GaussianEnsemble, TwoMeanEnsemble])
@pytest.mark.parametrize("noise", ["input", "constant"])
@torch.no_grad()
def test_chosen_members_predict_as_copies_of_them(kind: type[GaussianEnsemble], noise: str) -> None:
    if kind is TwoMeanEnsemble and noise == "constant":
        return
    network = kind(4, 2, members=4, hidden=(8, 8), noise=noise, generator=seeded()).double()  # type: ignore[arg-type]
    kept = InferenceNetwork()
    for members in (torch.tensor([3, 1]), torch.arange(4), torch.tensor([1, 3, 0])):
        found, expected = kept.of(network, members)(ROWS), network.select(members)(ROWS)
        torch.testing.assert_close(found.mean, expected.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.std, expected.std, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(for_inference(network)(ROWS).mean, network(ROWS).mean)


def test_members_are_those_of_now_after_a_fit() -> None:
    """The optimizer writes into weights without a trace that could be looked for."""
    network = GaussianEnsemble(4, 4, members=3, hidden=(8,), generator=seeded())
    kept, members, x = InferenceNetwork(), torch.tensor([2, 0]), ROWS.float()
    with torch.no_grad():
        before = kept.of(network, members)(x).mean
        held = kept.of(network, members)
    data = Samples(x, x)
    fit_network(network, NLL(), data, data, generator=seeded(), settings=FitSettings(steps=5))
    with torch.no_grad():
        expected = network.select(members)(x).mean
        for now in (kept.of(network, members), held):
            torch.testing.assert_close(now(x).mean, expected)
    assert not torch.allclose(before, expected)


def test_gradients_are_refused() -> None:
    network = GaussianEnsemble(4, 2, members=2, hidden=(8,), generator=seeded()).double()
    with pytest.raises(RuntimeError, match=r"out=.*automatic differentiation"):
        for_inference(network)(ROWS)


def test_copies_are_empty() -> None:
    network, kept = GaussianEnsemble(4, 2, members=2, hidden=(8,)), InferenceNetwork()
    kept.of(network, torch.tensor([0]))
    for other in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert vars(other) == vars(InferenceNetwork())
    assert vars(kept) != vars(InferenceNetwork())
