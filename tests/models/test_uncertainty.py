"""A sample and its uncertainty in one pass, against the sample alone and a slow loop."""

import math

import pytest
import torch

from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import Covariance, ModelSettings
from mbrl_bilevel.models.uncertainty import Penalty, sample_with_uncertainty


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(covariance: Covariance = "diagonal", noise: str = "input") -> DynamicsModel:
    """Two elites of three members, three dimensions and a reward, some deviations above 1."""
    settings = ModelSettings(members=3, hidden=(8,), covariance=covariance, noise=noise)  # type: ignore[arg-type]
    found = DynamicsModel(3, 1, settings, learn_reward=True, generator=seeded()).double()
    found.target_standardizer.std.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    found.target_standardizer.mean.copy_(torch.tensor([0.5, -1.0, 0.0, 2.0]))
    found.elites = torch.tensor([2, 0])
    return found


OBS = torch.randn(7, 3, generator=seeded(1)).double()
ACT = torch.randn(7, 1, generator=seeded(2)).double()


@pytest.mark.parametrize(
    ("covariance", "noise"), [("diagonal", "input"), ("full", "input"), ("diagonal", "constant")]
)
@pytest.mark.parametrize("kind", ["aleatoric", "disagreement"])
def test_uncertainty_is_that_of_a_slow_loop(
    covariance: Covariance, noise: str, kind: Penalty
) -> None:
    unsure = model(covariance, noise)
    found = sample_with_uncertainty(unsure, OBS, ACT, seeded(), kind)[1]
    scale = unsure.target_standardizer.std.tolist()
    with torch.no_grad():
        gaussian = unsure.predict(OBS, ACT)  # in the target's units
    capped = 0
    for b in range(len(OBS)):
        spreads = [[float(row.norm()) for row in gaussian.scale_tril[e, b]] for e in (2, 0)]
        if kind == "disagreement":  # of two numbers: half their distance
            spreads = [((gaussian.mean[2, b] - gaussian.mean[0, b]).abs() / 2).tolist()]
        units = [[s / t for s, t in zip(row, scale, strict=True)] for row in spreads]
        capped += sum(u > 1 for row in units for u in row)
        expected = max(math.hypot(*(min(u, 1.0) for u in row)) for row in units)
        assert float(found[b]) == pytest.approx(expected, rel=1e-12)
    assert capped or kind == "disagreement" or noise == "constant"


@pytest.mark.parametrize(
    ("covariance", "noise"), [("diagonal", "input"), ("full", "input"), ("diagonal", "constant")]
)
@pytest.mark.parametrize("kind", ["aleatoric", "disagreement"])
def test_the_sample_is_that_of_the_model(covariance: Covariance, noise: str, kind: Penalty) -> None:
    unsure, generators = model(covariance, noise), (seeded(3), seeded(3))
    found = sample_with_uncertainty(unsure, OBS, ACT, generators[0], kind)[0]
    expected = unsure.sample(OBS, ACT, generators[1])
    torch.testing.assert_close(found.observation, expected.observation, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.reward, expected.reward, rtol=1e-12, atol=1e-12)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_a_constant_target_is_sure() -> None:
    unsure = model()
    everything = sample_with_uncertainty(unsure, OBS, ACT, seeded(), "aleatoric")[1]
    unsure.restrict(torch.tensor([0, 3]))
    gaussian = unsure.network(unsure.inputs(OBS, ACT))
    expected = gaussian.std[unsure.elites].clamp(max=1.0).norm(dim=-1).amax(0)
    found = sample_with_uncertainty(unsure, OBS, ACT, seeded(), "aleatoric")[1]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)
    assert (found < everything).all()
