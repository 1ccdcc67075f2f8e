"""The Mahalanobis reward against plain loops, sampling and autograd, in float64."""

import math

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.distributions import DiagonalGaussian, FullGaussian
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis

FORMS = ("scalar", "diagonal", "full")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def random_reward(form: str, n: int, inputs: int | None = None, seed: int = 1) -> Mahalanobis:
    """A reward in float64 whose parameters are all random, so that nothing rests on their start."""
    reward = Mahalanobis(n, form=form, inputs=inputs, hidden=(8,)).double()
    with torch.no_grad():
        for k, parameter in enumerate(reward.parameters()):
            parameter.copy_(0.4 * draw(*parameter.shape, seed=seed + k))
    return reward


def random_gaussian(kind: str, *lead: int, n: int) -> DiagonalGaussian | FullGaussian:
    mean, log_std = draw(*lead, n, seed=5), 0.3 * draw(*lead, n, seed=6)
    if kind == "diagonal":
        return DiagonalGaussian(mean, log_std)
    factor = draw(*lead, n, n, seed=7).tril(-1) + torch.diag_embed(log_std.exp())
    return FullGaussian(mean, factor)


@pytest.mark.parametrize("inputs", [None, 3])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("n", "b"), [(1, 1), (2, 4), (17, 1)])
def test_reward_is_the_quadratic_form_of_its_precision(form, inputs, n, b):
    reward = random_reward(form, n, inputs)
    y_hat, y, x = draw(5, b, n), draw(b, n, seed=2), draw(b, 3, seed=3)
    precision = reward.precision(x)
    assert precision.shape == ((n, n) if inputs is None else (b, n, n))
    value = reward(y_hat, y, x)
    assert value.shape == (5, b)
    for g in range(5):
        for i in range(b):
            u = precision if inputs is None else precision[i]
            d = y_hat[g, i] - y[i]
            assert value[g, i].item() == pytest.approx(-(d @ u @ d).item(), rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_precision_is_positive_definite_and_its_parts_agree(form):
    reward = random_reward(form, 4, inputs=3)
    x = 1e3 * draw(6, 3)  # far from any data, where the movement is at its bound
    precision = reward.precision(x)
    assert (torch.linalg.eigvalsh(precision) > 0).all()
    torch.testing.assert_close(precision.diagonal(dim1=-2, dim2=-1), reward.precision_diagonal(x))
    torch.testing.assert_close(torch.logdet(precision), reward.logdet(x))
    factor = reward.scale_tril(x)
    torch.testing.assert_close(factor, factor.tril())
    reach = reward.logdet(x) - 2 * reward.log_diagonal.expand(4).sum()
    bound = 2 * 4 * reward.spread  # exp(spread) on each of 4 entries of L, reached to rounding
    assert (reach.abs() <= (1 + 1e-9) * bound).all()
    assert (reach.abs() > 1).any()


@pytest.mark.parametrize("inputs", [None, 3])
def test_initial_matrix_is_kept_in_every_form(inputs):
    a = draw(3, 3)
    matrix = a @ a.mT + torch.eye(3, dtype=torch.float64)
    x = draw(4, 3, seed=9)
    for form, initial, expected in (
        ("scalar", 0.3, 0.3 * torch.eye(3, dtype=torch.float64)),
        ("diagonal", matrix.diagonal(), torch.diag(matrix.diagonal())),
        ("full", matrix, matrix),
    ):
        start = torch.as_tensor(initial, dtype=torch.float64)
        got = Mahalanobis(3, form=form, initial=start, inputs=inputs).precision(x)
        torch.testing.assert_close(got, expected.expand_as(got), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inputs", [None, 3])
@pytest.mark.parametrize("kind", ["diagonal", "full"])
@pytest.mark.parametrize("form", FORMS)
def test_expected_agrees_with_the_trace_formula(form, kind, inputs):
    reward, gaussian = random_reward(form, 3, inputs), random_gaussian(kind, 2, 4, n=3)
    y, x = draw(4, 3, seed=2), draw(4, 3, seed=3)
    u = reward.precision(x)
    d = (gaussian.mean - y).unsqueeze(-1)
    covariance = gaussian.scale_tril @ gaussian.scale_tril.mT
    quadratic = (d.mT @ u @ d)[..., 0, 0]
    trace = (u @ covariance).diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(reward.expected(gaussian, y, x), -quadratic - trace)


@pytest.mark.parametrize("inputs", [None, 3])
def test_the_terms_of_a_diagonal_model_are_those_of_its_matrix(inputs):
    """Row sums of squared products in place of the matrix L^T diag(std), dimension by dimension."""
    reward, gaussian = random_reward("full", 3, inputs), random_gaussian("diagonal", 2, 4, n=3)
    y, x = draw(4, 3, seed=2), draw(4, 3, seed=3)
    L = reward.scale_tril(x)
    at_mean = ((gaussian.mean - y).unsqueeze(-2) @ L).squeeze(-2).square()
    expected = -at_mean - (L.mT @ gaussian.scale_tril).square().sum(-1)
    found = reward.expected_terms(gaussian, y, x)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_expected_agrees_with_monte_carlo(kind):
    reward, gaussian = random_reward("full", 3, inputs=2), random_gaussian(kind, 4, n=3)
    y, x = draw(4, 3, seed=2), draw(4, 2, seed=3)
    samples = reward(gaussian.rsample(draw(100_000, 4, 3, seed=4)), y, x)
    error = samples.mean(0) - reward.expected(gaussian, y, x)
    standard_error = samples.std(0) / math.sqrt(len(samples))
    assert (error.abs() < 4 * standard_error).all()  # 4 of 1e5 samples: 3e-4 by chance
    assert (standard_error < 0.02 * samples.mean(0).abs()).all()


def test_members_and_shared_data_broadcast():
    reward = random_reward("full", 2, inputs=3)
    y_hat, y, x = draw(5, 3, 4, 2), draw(3, 4, 2, seed=2), draw(3, 4, 3, seed=3)
    per_member = reward(y_hat, y, x)
    assert per_member.shape == (5, 3, 4)
    for e in range(3):
        torch.testing.assert_close(per_member[:, e], reward(y_hat[:, e], y[e], x[e]))
    torch.testing.assert_close(reward(y_hat, y[0], x[0])[:, 0], per_member[:, 0])


@pytest.mark.parametrize("form", FORMS)
def test_gradients_by_autograd(form):
    reward = random_reward(form, 2, inputs=2)
    names = [name for name, _ in reward.named_parameters()]
    y_hat, y, x = draw(2, 2, 2), draw(2, 2, seed=2), draw(2, 2, seed=3)

    def value(y_hat, *phi):
        overrides = dict(zip(names, phi, strict=True))
        return torch.func.functional_call(reward, overrides, (y_hat, y, x))

    inputs = [t.detach().requires_grad_() for t in (y_hat, *reward.parameters())]
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


@pytest.mark.slow  # the first torch.func transform of a process imports for seconds
def test_works_under_vmap_and_grad():
    reward = random_reward("full", 2, inputs=2)
    y_hat, y, x = draw(3, 4, 2), draw(4, 2, seed=2), draw(4, 2, seed=3)
    phi = dict(reward.named_parameters())

    def one(y_hat):
        return torch.func.functional_call(reward, phi, (y_hat, y, x)).sum()

    got = torch.func.vmap(torch.func.grad(one))(y_hat)
    expected = -2 * torch.einsum("bij,gbj->gbi", reward.precision(x), y_hat - y)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"outputs": 0}, "at least 1"),
        ({"outputs": 2, "initial": -1.0}, "not positive definite"),
        ({"outputs": 2, "initial": math.nan}, "not finite"),
        ({"outputs": 2, "initial": torch.ones(3)}, r"shape \[3\]"),
        ({"outputs": 2, "initial": torch.tensor([[1.0, 0.5], [0.5, 1.0]])}, "off its diagonal"),
        ({"outputs": 2, "initial": torch.tensor([[1.0, 2], [2, 1]])}, "not positive definite"),
        (
            {"outputs": 2, "form": "full", "initial": torch.tensor([[1.0, 0.5], [0, 1]])},
            "symmetric",
        ),
        ({"outputs": 2, "form": "scalar", "initial": torch.tensor([1.0, 2])}, "multiple"),
    ],
)
def test_bad_matrices_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        Mahalanobis(**arguments)


@pytest.mark.parametrize(("form", "spread"), [("scalar", [2.0, 2.0]), ("diagonal", [2.0, 5.0])])
def test_a_matrix_fits_a_form_to_rounding(form, spread):
    exact = torch.diag(torch.tensor(spread))
    rounded = exact + 1e-8 * torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    torch.testing.assert_close(Mahalanobis(2, form=form, initial=rounded).precision(), exact)
    with pytest.raises(InputError, match="initial U"):
        Mahalanobis(2, form=form, initial=exact + 1e-3 * torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


@pytest.mark.parametrize(
    ("U", "words"),
    [
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "not positive definite"),
        (torch.tensor([[1.0, 0.0], [0.0, math.nan]]), "not finite"),
        (torch.eye(3), r"shape \[3, 3\]"),
    ],
)
def test_a_bad_matrix_leaves_the_reward_as_it_was(U, words):
    reward = Mahalanobis(2, form="full", initial=3.0)
    with pytest.raises(InputError, match=words):
        reward.set_precision(U)
    torch.testing.assert_close(reward.precision(), 3.0 * torch.eye(2))


def test_data_that_do_not_fit_are_refused():
    reward = Mahalanobis(2, inputs=3)
    with pytest.raises(InputError, match="2 target dimensions was given targets of 4"):
        reward(torch.zeros(1, 5, 4), torch.zeros(5, 4), torch.zeros(5, 3))
    with pytest.raises(InputError, match="3 inputs was given one of 2"):
        reward(torch.zeros(1, 5, 2), torch.zeros(5, 2), torch.zeros(5, 2))
    with pytest.raises(InputError, match="was given none"):
        reward.precision()
