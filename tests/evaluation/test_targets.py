"""Which targets the metrics include, and the warning of constant ones that move."""

import pytest
import torch

from mbrl_bilevel.evaluation.baselines import LinearModel
from mbrl_bilevel.evaluation.coverage import interval_coverage
from mbrl_bilevel.evaluation.fan import fan
from mbrl_bilevel.evaluation.k_step import k_step
from mbrl_bilevel.evaluation.model_evaluation import evaluate
from mbrl_bilevel.evaluation.rollouts import sampled_paths
from mbrl_bilevel.evaluation.targets import how_many_vary, target_counts, warn_of_moving
from mbrl_bilevel.evaluation.windows import draw_windows
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.settings import ModelSettings
from tests.models.test_constant_targets import few_that_move, seeded, transitions


def model_of(data, **arguments):
    sizes = data.observation.shape[1], data.action.shape[1]
    model = DynamicsModel(
        *sizes, ModelSettings(members=2, hidden=(8,)), generator=seeded(), **arguments
    )
    with pytest.warns(UserWarning, match="are constant in the training part"):
        model.fit_standardizers(data)
    return model


def test_the_counts_name_what_is_constant():
    counts = target_counts(model_of(few_that_move(), learn_reward=True))
    assert counts == {
        "targets": 6,
        "varying_targets": 2,
        "constant_targets": ["observation 0", "observation 2", "observation 4", "reward"],
    }
    assert how_many_vary(counts) == "2 of 6 target dimensions vary"
    everything = {"targets": 3, "varying_targets": 3, "constant_targets": []}
    assert how_many_vary(everything) == "3 target dimensions"


@pytest.mark.situation("warned")
def test_a_constant_target_that_moves_elsewhere_is_named_with_how_far():
    model, test = model_of(few_that_move(), learn_reward=True), few_that_move(reward=0.75)
    test.next_observation[7, 2] -= 3.5
    test.next_observation[:, 4] += 1e-6  # rounding, beside observations of up to 15
    with pytest.warns(UserWarning, match="constant in the training part move") as caught:
        warn_of_moving(model, test, "test")
    text = str(caught[0].message)
    assert text.startswith("2 targets that are constant in the training part move in the test part")
    assert "observation 2 (by up to 3.5), reward (by up to 0.25);" in text
    warn_of_moving(model, few_that_move(), "held-out")  # nothing moves: a warning is an error


def test_figures_are_those_of_the_same_model_without_the_constant_columns():
    """A hundred columns that are predicted exactly would make any model look excellent."""
    data, padded = transitions(episodes=12), transitions(constants=100, episodes=12)
    plain = DynamicsModel(3, 3, ModelSettings(members=2, hidden=(8,)), generator=seeded())
    plain.fit_standardizers(data)
    wide = model_of(padded)
    used = [0, 1, 2, 103, 104, 105]  # inputs, and heads: three observations and what comes after
    with torch.no_grad():  # the same function of the three that vary
        (first, last), (one, two) = (m.network.network.linear_layers() for m in (wide, plain))
        first.weight[:, used], last.weight[..., used] = one.weight, two.weight
        first.bias.copy_(one.bias)
        last.bias[..., used] = two.bias
    ours, theirs = (
        evaluate(model, part, [1, 5], seeded(), part)
        for model, part in ((wide, padded), (plain, data))
    )
    assert ours.one_step.rmse == pytest.approx(theirs.one_step.rmse, rel=1e-4)
    assert ours.one_step.nll == pytest.approx(theirs.one_step.nll, rel=1e-4)
    assert ours.one_step.r2 == pytest.approx(theirs.one_step.r2, rel=1e-4)
    for name in ("rmse", "persistence", "linear"):
        torch.testing.assert_close(
            getattr(ours.k_step, name), getattr(theirs.k_step, name), rtol=1e-3, atol=0
        )
    # sampled by other noise: 500 windows of 3 dimensions
    torch.testing.assert_close(ours.coverage, theirs.coverage, rtol=0, atol=0.1)
    assert set(ours.fan.names) == {"observation 0", "observation 1", "observation 2"}
    assert ours.target_names == theirs.target_names
    assert ours.metrics()["varying_targets"] == 3
    assert len(ours.metrics()["constant_targets"]) == 100


def test_a_model_of_the_reward_alone_is_evaluated_on_observations_too():
    """No dimension of the observation varies: open-loop errors are over all of them, and 0."""
    data = few_that_move(count=60)
    data.next_observation[:] = data.observation
    data.observation[:] = data.observation[0]
    data.next_observation[:] = data.observation
    data.reward[:] = torch.randn(60, generator=seeded())
    model = model_of(data, learn_reward=True)
    assert model.informative_names == ("reward",)
    windows = draw_windows(data, 3, seeded())
    found = k_step(model, windows, seeded(), LinearModel.fit(model, data))
    assert torch.equal(found.rmse, torch.zeros(3, dtype=torch.float64))
    paths = sampled_paths(model, windows, seeded(), 5)
    assert fan(model, windows, paths, torch.ones(5), seeded()).truth.shape == (3, 5)
    assert interval_coverage(paths, windows).shape == (2, 3)
    futures = Propagation(model, disagreement=True).trajectories(
        windows.start, windows.actions.unsqueeze(1), seeded()
    )
    assert torch.equal(futures.disagreement, torch.zeros(60, 1, 3))
