"""Figures of the noise hold the numbers that they should."""

import matplotlib.pyplot as plt
import pytest
import torch

from mbrl_bilevel.evaluation.noise_figures import noise_against_truth, precision_map
from mbrl_bilevel.models.gaussian import GaussianEnsemble


def test_the_map_of_U_runs_from_the_least_to_the_largest_tenth():
    U = torch.stack(
        [torch.logspace(0, 3, 1000)[torch.randperm(1000)], torch.full((1000,), 10.0)], 1
    )
    figure = precision_map(U, ["angle", "speed"])
    axes = figure.axes[0]
    shown = torch.tensor(axes.images[0].get_array().tolist())
    torch.testing.assert_close(shown[0], torch.linspace(0.15, 2.85, 10), rtol=0, atol=0.02)
    torch.testing.assert_close(shown[1], torch.ones(10))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["angle", "speed"]
    plt.close(figure)


def test_a_true_noise_lies_on_the_diagonal():
    g = torch.Generator().manual_seed(0)
    net = GaussianEnsemble(2, 1, members=1, hidden=())
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    net.set_std(torch.tensor([[0.3]]))
    y = 0.3 * torch.randn(20_000, 1, generator=g)
    figure = noise_against_truth(net, torch.randn(20_000, 2, generator=g), y, ["speed"])
    said, was = figure.axes[0].lines[0].get_data()
    assert said == pytest.approx([0.3] * 10, rel=1e-3)
    # 2,000 residuals in each tenth: a relative standard error of 1.6 %, four of them
    assert was == pytest.approx([0.3] * 10, rel=0.064)
    plt.close(figure)
