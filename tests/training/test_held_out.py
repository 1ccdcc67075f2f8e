"""Held-out metrics by which members and steps are chosen."""

import pytest
import torch

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.training.held_out import WORST, held_out_metrics
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.trainer import Trainer


def sure_and_unsure(covariance="diagonal"):
    """Member 0 is right within 0.1 in nineteen dimensions and sure of the wrong value in the last.

    Member 1 knows nothing: mean 0 and deviation 1. Targets are 0.05, in the last dimension 1.
    """
    network = GaussianEnsemble(3, 20, members=2, hidden=(), covariance=covariance)
    std = torch.ones(2, 20)
    std[0] = 0.1
    std[0, 19] = 1e-4
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
        network.set_std(std)
    y = torch.full((50, 20), 0.05)
    y[:, 19] = 1.0
    return network, Samples(torch.randn(50, 3), y)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_dimension_counts_for_a_bounded_likelihood(covariance):
    network, data = sure_and_unsure(covariance)
    found = held_out_metrics(network, *data)
    assert found["nll"][0] > 1e6
    own = torch.log(torch.tensor(0.1)) + 0.9189385 + 0.125
    rounding = 1e-6 if covariance == "diagonal" else 1e-6 * found["nll"][0].item()
    torch.testing.assert_close(
        found["bounded_nll"][0], (19 * own + WORST) / 20, rtol=0, atol=rounding
    )
    torch.testing.assert_close(found["bounded_nll"][1], found["nll"][1])


@pytest.mark.situation("right")
def test_members_are_not_chosen_by_one_exploding_likelihood():
    network, data = sure_and_unsure()
    trainer = Trainer(network, NLL(), data, data, torch.Generator().manual_seed(0))
    trainer.metrics()
    assert trainer.finish(0.0, False).order == [0, 1]


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize(("by_row", "mean"), [("nll", "bounded_nll"), ("mse", "mse")])
def test_scores_of_rows_have_the_scores_of_members_as_their_means(
    covariance, by_row, mean, monkeypatch
):
    """In several chunks, whose sums must be those of the whole."""
    monkeypatch.setattr("mbrl_bilevel.training.held_out.CHUNK", 16)
    network = GaussianEnsemble(
        3, 4, members=2, hidden=(5,), covariance=covariance,
        generator=torch.Generator().manual_seed(0),
    ).double()  # fmt: skip
    y = torch.randn(50, 4).double()
    y[:, 3] *= 100  # explodes
    data = Samples(torch.randn(50, 3).double(), y)
    found = held_out_metrics(network, *data, by_row=by_row)
    assert found["row_score"].shape == (2, 50)
    torch.testing.assert_close(found["row_score"].mean(-1), found[mean])
    if by_row == "mse":
        torch.testing.assert_close(
            found["row_score"], (network(data.x).mean - data.y).square().mean(-1)
        )
