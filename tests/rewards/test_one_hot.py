"""The one-hot Mahalanobis reward and the optimum it asks for (theory T7)."""

import pytest
import torch

from mbrl_bilevel.rewards.closed_form import optimal_logits
from mbrl_bilevel.rewards.one_hot import OneHotMahalanobis
from tests.rewards.test_mahalanobis import draw


def random_reward(form: str, classes: int, inputs: int | None = None) -> OneHotMahalanobis:
    reward = OneHotMahalanobis(classes, form=form, inputs=inputs, hidden=(6,)).double()
    with torch.no_grad():
        for k, parameter in enumerate(reward.parameters()):
            parameter.copy_(0.5 * draw(*parameter.shape, seed=k))
    return reward


@pytest.mark.parametrize("inputs", [None, 2])
@pytest.mark.parametrize("form", ["scalar", "diagonal", "full"])
def test_reward_is_the_quadratic_form_of_one_hot_codes(form, inputs):
    reward = random_reward(form, 4, inputs)
    y, x = torch.tensor([0, 3, 1]), draw(3, 2, seed=8)
    y_hat = torch.arange(4)[:, None].expand(4, 3)
    eye = torch.eye(4, dtype=torch.float64)
    d = (eye[y_hat] - eye[y]).unsqueeze(-1)
    expected = -(d.mT @ reward.precision(x) @ d)[..., 0, 0]
    value = reward(y_hat, y, x)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(value, reward.table(y, x).mT)
    assert (value[y, torch.arange(3)] == 0).all()  # the truth costs nothing


def test_members_broadcast():
    reward = random_reward("full", 3, inputs=2)
    y_hat, y, x = torch.tensor([[[0, 1], [2, 1]]]), torch.tensor([1, 2]), draw(2, 2)
    value = reward(y_hat, y, x)
    assert value.shape == (1, 2, 2)
    torch.testing.assert_close(value[:, 1], reward(y_hat[:, 1], y, x))
    torch.testing.assert_close(reward(y_hat, y.expand(2, 2), x.expand(2, 2, 2)), value)


def test_optimal_logits_are_the_expected_reward_up_to_a_constant():
    reward, lam = random_reward("full", 5), 0.6
    q = draw(3, 5).softmax(-1)
    u = reward.precision()
    classes = torch.arange(5)[:, None].expand(5, 3)
    table = torch.stack([reward(classes, torch.full((3,), c), draw(3, 1)) for c in range(5)], -1)
    expected_reward = (table * q).sum(-1).mT / lam
    difference = expected_reward - optimal_logits(u, q, lam)
    torch.testing.assert_close(difference, difference[:, :1].expand_as(difference))


def test_scale_of_the_identity_moves_no_argmax():
    q = draw(50, 5).softmax(-1)
    eye = torch.eye(5, dtype=torch.float64)
    for b in (0.1, 1.0, 10.0):
        assert (optimal_logits(b * eye, q, 1.0).argmax(-1) == q.argmax(-1)).all()


def test_a_global_matrix_cannot_hold_all_logs():
    # U = b I asks for log p linear in q: matched at one q, it is wrong at another
    eye = torch.eye(2, dtype=torch.float64)
    q = torch.tensor([[0.78, 0.22], [0.95, 0.05]], dtype=torch.float64)
    b = (q[0].log()[0] - q[0].log()[1]) / (2 * (q[0, 0] - q[0, 1]))
    p = optimal_logits(float(b) * eye, q, 1.0).softmax(-1)
    torch.testing.assert_close(p[0], q[0])
    assert (p[1] - q[1]).abs().max() > 0.05
