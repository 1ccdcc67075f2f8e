"""Widths of equal size: counted against the sum of layers, and within five per cent."""

import pytest
import torch

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.network_kinds import NETWORKS
from mbrl_bilevel.scripts.equal_size import hidden_of_equal_size, parameters


def test_a_plain_network_is_counted_layer_by_layer():
    a_member = (14 * 200 + 200) + 2 * (200 * 200 + 200) + (200 * 22 + 22)
    assert parameters("gaussian", 14, 11, 200) == 5 * a_member


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("inputs", "outputs"), [(14, 11), (23, 17), (12, 9)])
@pytest.mark.parametrize("times", [1, 2])
def test_every_kind_of_network_can_have_the_same_size(kind, inputs, outputs, times):
    size = times * parameters("gaussian", inputs, outputs, 200)
    hidden = hidden_of_equal_size(kind, inputs, outputs, size)
    generator = torch.Generator().manual_seed(0)
    network = NETWORKS[kind](inputs, outputs, hidden=hidden, generator=generator)
    assert network.parameter_count == pytest.approx(size, rel=0.01)


def test_the_width_of_nll_is_its_own():
    size = GaussianEnsemble(14, 11, hidden=(200, 200, 200)).parameter_count
    assert hidden_of_equal_size("gaussian", 14, 11, size) == (200, 200, 200)
