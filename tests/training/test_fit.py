"""A fit of a model to transitions: standardisers, objective, members, elites."""

import pytest
import torch

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.likelihood import MSE, NLL
from mbrl_bilevel.objectives.settings import NLLSettings, TwoMeansSettings
from mbrl_bilevel.training.fit import fit
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings

SHORT = FitSettings(steps=30, batch_size=32, evaluate_every=10)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def transitions(seed=0, count=300):
    """Position and speed of a damped cart that is pushed, in episodes of 30 steps."""
    obs, act = torch.randn(count, 3, generator=seeded(seed)).split([2, 1], 1)
    next_obs = obs + 0.1 * torch.stack([obs[:, 1], act[:, 0] - 0.5 * obs[:, 1]], 1)
    never = torch.zeros(count, dtype=torch.bool)
    return Transitions(
        obs, act, torch.zeros(count), next_obs, never, never, torch.arange(count) // 30
    )


TRAIN, HELD_OUT = transitions(), transitions(1, 90)


def model(**sizes):
    return DynamicsModel(2, 1, ModelSettings(members=3, hidden=(8,)), generator=seeded(), **sizes)


def test_it_is_a_fit_of_the_network_to_standardised_rows():
    ours, by_hand = model(), model()
    result = fit(ours, NLL(), TRAIN, HELD_OUT, generator=seeded(1), settings=SHORT, elites=2)
    by_hand.fit_standardizers(TRAIN)
    parts = [Samples(*by_hand.encode(part)) for part in (TRAIN, HELD_OUT)]
    expected = fit_network(by_hand.network, NLL(), *parts, generator=seeded(1), settings=SHORT)
    assert (result.nll, result.order) == (expected.nll, expected.order)
    for name, value in by_hand.state_dict().items():
        if name != "elites":
            assert torch.equal(ours.state_dict()[name], value)
    assert ours.elites.tolist() == expected.order[:2]


def test_settings_of_an_objective_are_as_good_as_the_objective():
    one, other = model(), model()
    fit(one, NLL(), TRAIN, HELD_OUT, generator=seeded(), settings=SHORT)
    fit(other, NLLSettings(), TRAIN, HELD_OUT, generator=seeded(), settings=SHORT)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_warm_start_goes_on_from_the_noise_that_two_means_learned():
    settings = FitSettings(steps=30, batch_size=32, evaluate_every=10, patience=None)
    fitted = model(kind="two_means")
    fit(fitted, TwoMeansSettings(), TRAIN, HELD_OUT, generator=seeded(), settings=settings)
    learned = fitted.network.side.state_dict()
    for warm in (True, False):
        objective = TwoMeansSettings().build(fitted, TRAIN, HELD_OUT, steps=30, generator=seeded(2))
        if warm:
            objective.warm_start(fitted.network)
        same = [
            torch.equal(tensor, learned[name][:1])
            for name, tensor in objective.inner.side.state_dict().items()
        ]
        assert all(same) == warm


@pytest.mark.parametrize("objective", [MSE(), NLLSettings()])
def test_constant_targets_are_refused_before_anything_is_trained(objective):
    still = transitions()
    still = still.__class__(**{**vars(still), "next_observation": still.observation})
    with pytest.raises(InputError, match="constant"):
        fit(model(), objective, still, still, generator=seeded())
