"""Actions near a policy."""

import torch

from mbrl_bilevel.planning.prior import PolicyPrior
from mbrl_bilevel.protocols import ActionPrior


def test_the_deviation_is_added_to_the_mean_action_within_the_box() -> None:
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0])
    prior = PolicyPrior(lambda obs: obs.cumsum(-1), low, high)
    assert isinstance(prior, ActionPrior)
    obs = torch.tensor([[0.5, 1.0], [-0.75, 1.0]])
    deviation = torch.tensor([[0.25, -0.5], [-0.5, 5.0]])
    assert prior(obs, deviation).tolist() == [[0.75, 1.0], [-1.0, 4.0]]
    assert prior.largest_deviation().tolist() == [1.0, 2.0]
