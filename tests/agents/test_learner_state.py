"""States of an agent's parts as one, and a model's as fits leave it."""

from types import SimpleNamespace

import pytest
import torch

from mbrl_bilevel.agents.learner_state import (
    ModelState,
    load_agent,
    load_state,
    save_agent,
    state_of,
)
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.training.divergence import TrainingDiverged
from tests.agents.test_model_rollouts import STARTS, linear_model, rollouts, seeded


def copy(state):
    return {k: v.clone() for k, v in state.items()}


def test_a_models_state_leads_to_the_same_model():
    first = DynamicsModel(2, 1, ModelSettings(members=3, hidden=(4,)), generator=seeded())
    first.elites = torch.tensor([2, 0])
    second = DynamicsModel(2, 1, ModelSettings(members=3, hidden=(4,)), generator=seeded(1))
    ModelState(second).load_state(copy(ModelState(first).state()))
    a, b = first.state_dict(), second.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_models_state_says_which_targets_it_predicts():
    """A fit may have found that a target stood still; the model it goes on as must know."""
    first, second = linear_model(), linear_model()
    first.restrict(torch.tensor([1]))
    ModelState(second).load_state(copy(ModelState(first).state()))
    assert second.network.outputs == 1
    batches = [rollouts(one).imagine(STARTS, 0)[0] for one in (first, second)]
    assert torch.equal(batches[0].next_observation, batches[1].next_observation)
    assert torch.equal(batches[1].next_observation[:, 0], batches[1].observation[:, 0])


@pytest.mark.parametrize("kind", ["gaussian", "two_means"])
def test_a_models_state_says_which_deviations_are_held(kind):
    """A fit holds those of sparse targets, once; the next must find them as it left them."""
    sizes = ModelSettings(members=2, hidden=(4, 4))
    first, second = (DynamicsModel(2, 1, sizes, kind=kind, generator=seeded(i)) for i in (0, 1))
    first.network.hold_std(torch.tensor([1]))
    first.network.set_std(torch.full((2, 2), 0.3), held_only=True)
    ModelState(second).load_state(copy(ModelState(first).state()))
    for model in (first, second):
        model.network.hold_std(torch.tensor([1]))  # nothing new: nothing is reset
    assert second.network.held.tolist() == [False, True]
    assert second.network.held_share == 0.5
    x = torch.randn(5, 3, generator=seeded(2))
    ours, theirs = first.network(x), second.network(x)
    assert torch.equal(ours.std, theirs.std)
    torch.testing.assert_close(theirs.std[..., 1], torch.full((2, 5), 0.3))


def agent(model, step, seed):
    return SimpleNamespace(parts={"model": ModelState(model)}, step=step, generator=seeded(seed))


def test_parts_step_and_generator_are_one_state():
    model, other = linear_model(), linear_model(std=0.3)
    first, again = agent(model, 7, 4), agent(other, 0, 5)
    state = copy(state_of(first))
    expected = torch.rand(3, generator=first.generator)
    load_state(again, state)
    assert again.step == 7
    assert torch.equal(torch.rand(3, generator=again.generator), expected)
    ours, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_state_that_is_not_finite_leaves_the_last_checkpoint_in_place(tmp_path):
    model = linear_model()
    first = agent(model, 7, 4)
    save_agent(first, tmp_path)
    first.step = 8
    next(model.network.parameters()).data.fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match="step 8 is not finite"):
        save_agent(first, tmp_path)
    again = agent(linear_model(), 0, 5)
    load_agent(again, tmp_path)
    assert again.step == 7
