"""Categorical distributions and their ensemble against torch.distributions, in float64."""

import math

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.categorical import Categorical, CategoricalEnsemble, gumbel_noise
from tests.rewards.test_mahalanobis import draw


@pytest.mark.parametrize("lead", [(), (1,), (3, 4)])
def test_agrees_with_torch_distributions(lead):
    logits = 2 * draw(*lead, 5)
    y = torch.randint(5, (7, *lead), generator=torch.Generator().manual_seed(0))
    ours, peer = Categorical(logits), torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(ours.log_prob(y), peer.log_prob(y))
    torch.testing.assert_close(ours.entropy(), peer.entropy())
    torch.testing.assert_close(ours.probs, peer.probs)


def test_shared_labels_broadcast_over_members():
    categorical = Categorical(draw(3, 4, 5))
    y = torch.tensor([0, 4, 2, 2])
    for e in range(3):
        expected = Categorical(categorical.logits[e]).log_prob(y)
        torch.testing.assert_close(categorical.log_prob(y)[e], expected)


def test_extreme_logits_keep_finite_gradients():
    logits = torch.tensor([[1e4, 0.0, -1e4]], dtype=torch.float64, requires_grad=True)
    categorical = Categorical(logits)
    value = categorical.entropy() + categorical.log_prob(torch.tensor([2]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(gradient).all()
    assert categorical.entropy().item() == pytest.approx(0.0, abs=1e-12)


def test_samples_follow_the_probabilities():
    logits = draw(2, 4)
    noise = gumbel_noise((50_000, 2, 4), torch.Generator().manual_seed(1), dtype=torch.float64)
    samples = Categorical(logits).sample(noise)
    assert samples.shape == (50_000, 2)
    shares = torch.nn.functional.one_hot(samples, 4).double().mean(0)
    p = Categorical(logits).probs
    standard_error = (p * (1 - p)).sqrt() / math.sqrt(50_000)
    assert ((shares - p).abs() < 4 * standard_error).all()  # 8 shares: 5e-4 by chance


def test_linear_ensemble_on_one_hot_inputs_is_a_table_per_member():
    model = CategoricalEnsemble(
        3, 4, members=2, hidden=(), generator=torch.Generator().manual_seed(0)
    )
    out = model(torch.eye(3)).logits
    assert out.shape == (2, 3, 4)
    for e in range(2):
        torch.testing.assert_close(out[e], model.network.layers[0].weight[e])


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match="0 classes"):
        CategoricalEnsemble(3, 0)
