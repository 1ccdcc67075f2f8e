"""The neural reward: where it starts, how far it may go, and that it can be differentiated."""

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis
from mbrl_bilevel.rewards.neural import NeuralReward
from tests.rewards.test_mahalanobis import draw


def random_reward(n: int = 2, bound: float = 0.7) -> NeuralReward:
    reward = NeuralReward(Mahalanobis(n), 3, hidden=(8,), bound=bound).double()
    with torch.no_grad():
        for k, parameter in enumerate(reward.network.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=k))
    return reward


def test_starts_at_its_quadratic_base():
    reward = NeuralReward(Mahalanobis(2, initial=0.5), 3)
    y_hat, y, x = draw(4, 5, 2).float(), draw(5, 2).float(), draw(5, 3).float()
    assert torch.equal(reward(y_hat, y, x), reward.base(y_hat, y, x))


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_network_moves_the_reward_within_its_bound(scale):
    reward = random_reward()
    y_hat, y, x = scale * draw(4, 5, 2), draw(5, 2, seed=2), draw(5, 3, seed=3)
    movement = reward(y_hat, y, x) - reward.base(y_hat, y, x)
    # subtracting figures of the base's size leaves its rounding behind
    rounding = 1e-15 * reward.base(y_hat, y, x).abs().max()
    assert 0.05 < movement.abs().max() <= 0.7 + rounding


def test_member_axis_equals_each_member_alone():
    reward = random_reward()
    y_hat, y, x = draw(5, 3, 4, 2), draw(3, 4, 2, seed=2), draw(4, 3, seed=3)
    value = reward(y_hat, y, x)
    assert value.shape == (5, 3, 4)
    for e in range(3):
        torch.testing.assert_close(value[:, e], reward(y_hat[:, e], y[e], x))


def test_second_derivatives():
    reward = random_reward()
    y, x = draw(2, 2, seed=2), draw(2, 3, seed=3)
    y_hat = draw(2, 2, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda y_hat: reward(y_hat, y, x), y_hat)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="above 0"):
        NeuralReward(Mahalanobis(2), 3, bound=0.0)
    with pytest.raises(InputError, match="3 inputs was given 2"):
        random_reward()(draw(1, 4, 2), draw(4, 2), draw(4, 2))
