"""Fits that go on with the optimiser of the fit before."""

import torch

from mbrl_bilevel.nested_state import moments
from mbrl_bilevel.objectives.likelihood import MSE
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.kept_moments import KeptMoments
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.trainer import Trainer
from tests.training.test_fit_network import linear_data, network, seeded

# Every batch is the whole data; one evaluation at the end: the last weights are the best.
SETTINGS = FitSettings(
    steps=20, batch_size=400, evaluate_every=20, patience=None, schedule="constant"
)


def fitted(net, steps, *callbacks):
    data, settings = linear_data(), FitSettings(**vars(SETTINGS) | {"steps": steps})
    fit_network(net, MSE(), data, data, generator=seeded(), settings=settings, callbacks=callbacks)
    return net


def test_two_fits_that_share_moments_are_one_longer_fit():
    """Every batch is the whole data, in another order: sums differ by rounding alone."""
    kept = KeptMoments()
    twice = fitted(fitted(network().double(), 20, kept), 20, kept)
    once = fitted(network().double(), 40)
    anew = fitted(fitted(network().double(), 20), 20)
    pairs = zip(*(net.parameters() for net in (twice, once, anew)), strict=True)
    for a, b, c in pairs:
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(b, c, rtol=1e-4, atol=1e-4)


def test_what_is_kept_is_the_optimisers_own():
    kept = KeptMoments()
    fitted(network(), 20, kept)
    trainer = Trainer(network(), MSE(), linear_data(), linear_data(), seeded(), SETTINGS)
    for _ in range(20):
        trainer.train_step()
    expected = moments(trainer.optimizer)
    assert expected.keys() == kept.state.keys()
    assert all(torch.equal(expected[name], kept.state[name]) for name in expected)
