"""The inner objective J: its value, its optimum and its options (theory T1 to T5, T7)."""

import math

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.categorical import Categorical, CategoricalEnsemble
from mbrl_bilevel.models.distributions import DiagonalGaussian, FullGaussian
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.rewards.closed_form import diagonal_rule, full_rule, optimal_logits
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis
from mbrl_bilevel.rewards.neural import NeuralReward
from mbrl_bilevel.rewards.one_hot import OneHotMahalanobis
from tests.rewards.test_mahalanobis import draw, random_gaussian, random_reward

LAM = 0.7


def minimise(loss, *parameters: torch.Tensor) -> None:
    """Full-batch L-BFGS to machine precision."""
    solver = torch.optim.LBFGS(
        parameters,
        max_iter=2000,
        tolerance_grad=1e-12,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    solver.step(closure)
    gradient = torch.cat([p.grad.reshape(-1) for p in parameters])
    assert gradient.abs().amax() < 1e-7


def constant_gaussian(n: int, kind: str):
    """Free parameters of one Gaussian for all data, and the function that builds it for b data."""
    mean, log_std = torch.zeros(n).double(), torch.zeros(n).double()
    lower = torch.zeros(n, n).double()
    parameters = [p.requires_grad_() for p in (mean, log_std, lower)][: 2 + (kind == "full")]

    def build(b: int):
        if kind == "diagonal":
            return DiagonalGaussian(mean.expand(b, n), log_std.expand(b, n))
        factor = lower.tril(-1) + torch.diag(log_std.exp())
        return FullGaussian(mean.expand(b, n), factor.expand(b, n, n))

    return parameters, build


@pytest.mark.parametrize("kind", ["diagonal", "full"])
@pytest.mark.parametrize(("n", "b"), [(1, 1), (2, 3), (17, 2)])
def test_loss_is_minus_reward_minus_entropy_summed_over_dimensions(n, b, kind):
    reward, gaussian = random_reward("full", n), random_gaussian(kind, b, n=n)
    y, x = draw(b, n, seed=2), draw(b, 1)
    loss, metrics = PolicyGradient(reward, lam=LAM)(gaussian, x, y)
    u, d = reward.precision(), gaussian.mean - y
    covariance = gaussian.scale_tril @ gaussian.scale_tril.mT
    trace = (u * covariance).sum((-2, -1))
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * covariance)
    expected = -((d @ u) * d).sum(-1) - trace + LAM * entropy
    assert loss.shape == ()
    assert loss.item() == pytest.approx(-expected.mean().item(), rel=1e-12)
    assert metrics["entropy"].item() == pytest.approx(entropy.mean().item(), rel=1e-10)
    both = -(metrics["reward"] + LAM * metrics["entropy"])
    assert both.item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("estimator", ["reparameterized", "score_function"])
@pytest.mark.parametrize("n", [1, 2, 17])
def test_sampled_losses_estimate_the_exact_one_on_one_scale(estimator, n):
    reward, gaussian = random_reward("full", n), random_gaussian("diagonal", 1, n=n)
    y, x = draw(1, n, seed=2), draw(1, 1)
    exact, _ = PolicyGradient(reward, lam=LAM)(gaussian, x, y)
    noise = draw(20_000, 1, n, seed=3)
    sampled = PolicyGradient(reward, lam=LAM, estimator=estimator, samples=20_000)
    loss, _ = sampled(gaussian, x, y, noise=noise)
    standard_error = reward(gaussian.rsample(noise), y, x).std() / math.sqrt(20_000)
    assert abs(loss - exact) < 4 * standard_error
    assert 10 * standard_error < abs(exact)  # a division of either part by n would show


@pytest.mark.parametrize("kind", ["diagonal", "full"])
@pytest.mark.parametrize("form", ["scalar", "diagonal", "full"])
def test_optimum_is_the_mean_and_half_lambda_over_precision(form, kind):
    n, b = 3, 40
    reward, y = random_reward(form, n), 2 * draw(b, n, seed=2) + 1
    parameters, build = constant_gaussian(n, kind)
    objective = PolicyGradient(reward, lam=LAM)
    minimise(lambda: objective(build(b), y[:, :1], y)[0], *parameters)
    got, u = build(1), reward.precision().detach()
    torch.testing.assert_close(got.mean[0].detach(), y.mean(0), rtol=0, atol=1e-6)
    expected = 0.5 * LAM * torch.linalg.inv(u)
    if kind == "diagonal":  # under a full U: lam / (2 U_ii), theory T4
        expected = torch.diag(0.5 * LAM / u.diagonal())
    covariance = (got.scale_tril @ got.scale_tril.mT)[0].detach()
    torch.testing.assert_close(covariance, expected, rtol=0, atol=1e-6)


def test_closed_form_rules_bring_the_model_to_maximum_likelihood():
    y = draw(60, 2, seed=2) @ torch.tensor([[1.0, 0.6], [0.0, 0.5]], dtype=torch.float64)
    centred = y - y.mean(0)
    sigma = centred.mT @ centred / len(y)
    for kind, rule in (
        ("full", full_rule(sigma, LAM, ridge=0.0)),
        ("diagonal", diagonal_rule(sigma, LAM)),
    ):
        reward = Mahalanobis(2, form="full", initial=rule)
        parameters, build = constant_gaussian(2, kind)
        objective = PolicyGradient(reward, lam=LAM)
        minimise(lambda: objective(build(60), y, y)[0], *parameters)  # noqa: B023
        nll = -build(60).log_prob(y).mean()
        gradient = torch.autograd.grad(nll, parameters)
        assert max(g.abs().amax() for g in gradient) < 1e-6


def test_objective_is_a_reverse_kl():
    """J + lam KL(p || pi) is one constant for all p, pi = N(E[y | x], (lam/2) U^-1) (theory T5)."""
    reward, y = random_reward("full", 3), draw(50, 3, seed=2)
    target = FullGaussian(
        y.mean(0), torch.linalg.cholesky(0.5 * LAM * torch.linalg.inv(reward.precision()))
    )
    constants = []
    for k in range(4):
        mean, factor = draw(3, seed=k), draw(3, 3, seed=10 + k).tril(-1) + torch.eye(3).double()
        loss, _ = PolicyGradient(reward, lam=LAM)(
            FullGaussian(mean.expand(50, 3), factor.expand(50, 3, 3)), y, y
        )
        kl = torch.distributions.kl_divergence(
            torch.distributions.MultivariateNormal(mean, scale_tril=factor),
            torch.distributions.MultivariateNormal(target.mean, scale_tril=target.scale_tril),
        )
        constants.append(-loss + LAM * kl)
    spread = torch.stack(constants)
    assert spread.std() < 1e-12 * spread.abs().mean() * 10
    assert spread.abs().mean() > 0.1


def test_gradient_of_the_mean_under_a_scalar_reward_is_u_times_that_of_mse():
    mean = draw(5, 3).requires_grad_()
    y, x = draw(5, 3, seed=2), draw(5, 1)
    reward = Mahalanobis(3, form="scalar", initial=torch.tensor(0.3).double())
    gaussian = DiagonalGaussian(mean, torch.zeros(5, 3).double())
    (ours,) = torch.autograd.grad(PolicyGradient(reward)(gaussian, x, y)[0], mean)
    (mse,) = torch.autograd.grad((mean - y).square().sum(-1).mean(), mean)
    torch.testing.assert_close(ours, 0.3 * mse)


@pytest.mark.parametrize("estimator", ["exact", "reparameterized", "score_function"])
@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_members_at_once_equal_each_member_alone(estimator, covariance):
    model = GaussianEnsemble(3, 2, members=3, hidden=(8,), covariance=covariance).double()
    x, y = draw(3, 4, 3), draw(3, 4, 2, seed=2)
    reward = random_reward("full", 2, inputs=3)
    objective = PolicyGradient(reward, estimator=estimator, samples=4, lam=LAM)
    noise = draw(4, 3, 4, 2, seed=5)
    loss, metrics = objective(model, x, y, noise=noise)
    assert loss.shape == metrics["reward"].shape == metrics["entropy"].shape == (3,)
    whole = model(x)
    for e in range(3):
        fields = {k: v[e] for k, v in vars(whole).items()}
        alone, _ = objective(type(whole)(**fields), x[e], y[e], noise=noise[:, e])
        assert loss[e].item() == pytest.approx(alone.item(), rel=1e-10)


@pytest.mark.parametrize("estimator", ["reparameterized", "score_function"])
def test_the_generator_alone_decides_the_samples(estimator):
    model = GaussianEnsemble(3, 2, members=2, hidden=(8,))
    x, y = draw(4, 3).float(), draw(4, 2).float()
    objective = PolicyGradient(Mahalanobis(2), estimator=estimator, samples=3)
    first, second, third = (
        objective(model, x, y, torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    with pytest.raises(InputError, match=r"pass a torch\.Generator"):
        objective(model, x, y)


@pytest.mark.parametrize(
    ("estimator", "options"),
    [("reparameterized", {}), ("score_function", {"baseline": "none"})],
)
@pytest.mark.parametrize("n", [1, 2, 17])
def test_one_generation_of_one_datum_keeps_its_shape(estimator, options, n):
    model = GaussianEnsemble(2, n, members=1, hidden=())
    objective = PolicyGradient(Mahalanobis(n), estimator=estimator, samples=1, **options)
    generator = torch.Generator().manual_seed(0)
    loss, _ = objective(model, torch.zeros(1, 2), torch.zeros(1, n), generator)
    noise = objective.draw_noise(model(torch.zeros(1, 2)), torch.Generator().manual_seed(0))
    assert noise.shape == (1, 1, 1, n)
    y_hat = model(torch.zeros(1, 2)).rsample(noise)[0]
    entropy = model(torch.zeros(1, 2)).entropy()
    torch.testing.assert_close(loss, (y_hat.square().sum(-1) - entropy)[:, 0])


def test_functional_call_gives_the_loss_as_a_function_of_the_outer_variable():
    reward, gaussian = random_reward("full", 2, inputs=2), random_gaussian("full", 3, n=2)
    y, x = draw(3, 2, seed=2), draw(3, 2, seed=3)
    objective = PolicyGradient(reward, lam=LAM)
    phi = dict(objective.named_parameters())
    assert set(phi) == {f"reward.{name}" for name, _ in reward.named_parameters()}

    def value(*tensors):
        overrides = dict(zip(phi, tensors, strict=True))
        return torch.func.functional_call(objective, overrides, (gaussian, x, y))[0]

    assert torch.autograd.gradcheck(value, [p.detach().requires_grad_() for p in phi.values()])


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_shift_of_the_reward_leaves_the_exact_gradient_untouched(covariance):
    class Shifted(Mahalanobis):
        def expected(self, gaussian, y, x):
            return super().expected(gaussian, y, x) + 37.3 * y.sum(-1) + x.sum(-1)

    model = GaussianEnsemble(3, 2, members=2, hidden=(8,), covariance=covariance).double()
    x, y = draw(4, 3), draw(4, 2, seed=2)
    losses = [PolicyGradient(kind(2).double())(model, x, y)[0] for kind in (Mahalanobis, Shifted)]
    assert (losses[0] - losses[1]).abs().amin() > 0.1
    plain, shifted = (torch.autograd.grad(v.sum(), list(model.parameters())) for v in losses)
    assert all((a - b).abs().amax() == 0.0 for a, b in zip(plain, shifted, strict=True))


def test_scaling_reward_and_lambda_together_scales_the_loss():
    gaussian, y, x = random_gaussian("full", 3, n=2), draw(3, 2, seed=2), draw(3, 1)
    one, _ = PolicyGradient(Mahalanobis(2).double(), lam=0.5)(gaussian, x, y)
    four = Mahalanobis(2, initial=torch.tensor(4.0).double())
    other, _ = PolicyGradient(four, lam=2.0)(gaussian, x, y)
    assert other.item() == pytest.approx(4 * one.item(), rel=1e-12)


def test_float32_agrees_with_float64():
    model = GaussianEnsemble(3, 2, members=2, hidden=(8,), covariance="full")
    x, y, reward = draw(6, 3), draw(6, 2, seed=2), Mahalanobis(2, form="full", inputs=3)
    single, _ = PolicyGradient(reward)(model, x.float(), y.float())
    double, _ = PolicyGradient(reward.double())(model.double(), x, y)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=0)


@pytest.mark.parametrize("form", ["scalar", "full"])
def test_categorical_optimum_is_the_closed_form(form):
    """One-hot reward, frequencies .5, .3, .2: the optimal logits of theory T7."""
    reward = OneHotMahalanobis(3, form=form).double()
    with torch.no_grad():
        for k, parameter in enumerate(reward.parameters()):
            parameter.copy_(0.4 * draw(*parameter.shape, seed=k))
    y = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    objective = PolicyGradient(reward, lam=LAM)
    x = torch.zeros(10, 1).double()
    minimise(lambda: objective(Categorical(logits.expand(10, 3)), x, y)[0], logits)
    q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    expected = optimal_logits(reward.precision().detach(), q, LAM).softmax(-1)
    torch.testing.assert_close(logits.softmax(-1).detach(), expected, rtol=0, atol=1e-7)


def test_categorical_ensembles_train_by_every_estimator_they_have():
    model = CategoricalEnsemble(2, 3, members=2, hidden=()).double()
    x, y = draw(4, 2), torch.tensor([0, 2, 1, 0])
    reward = OneHotMahalanobis(3).double()
    exact, _ = PolicyGradient(reward)(model, x, y)
    assert exact.shape == (2,)
    sampled = PolicyGradient(reward, estimator="score_function", samples=20_000)
    loss, _ = sampled(model, x, y, torch.Generator().manual_seed(0))
    # rewards are -2 or 0: at most 1 of deviation, over 4 data and 20,000 samples
    assert ((loss - exact).abs() < 4 / math.sqrt(4 * 20_000)).all()
    with pytest.raises(InputError, match="no pathwise derivative"):
        PolicyGradient(reward, estimator="reparameterized")(
            model, x, y, torch.Generator().manual_seed(0)
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lam": 0.0}, "above 0"),
        ({"lam": math.nan}, "above 0"),
        ({"samples": 0}, "samples = 0"),
        ({"estimator": "score_function", "samples": 1}, "no other generation"),
        (
            {
                "estimator": "score_function",
                "samples": 1,
                "transform": "normalize",
                "baseline": "none",
            },
            "no other generation",
        ),
        ({"transform": "rbf"}, "acts on samples"),
        ({"estimator": "reparameterized", "transform": "normalize"}, "belong to"),
        ({"clip_log_prob": (-1.0, 1.0)}, "belong to"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        PolicyGradient(Mahalanobis(2), **options)


def test_exact_needs_a_reward_with_an_expectation():
    objective = PolicyGradient(NeuralReward(Mahalanobis(2), 1))
    with pytest.raises(InputError, match="NeuralReward has no closed-form expectation"):
        objective(random_gaussian("diagonal", 3, n=2), draw(3, 1), draw(3, 2))


@pytest.mark.parametrize("estimator", ["reparameterized", "score_function"])
@pytest.mark.parametrize("wrong", [lambda r: r.mean(0), lambda r: r.unsqueeze(-1), torch.sum])
def test_a_reward_of_the_wrong_shape_is_refused(estimator, wrong):
    """[B] for [G, E, B] would be broadcast in silence."""

    class Wrong(torch.nn.Module):
        def forward(self, y_hat, y, x):
            return wrong(-(y_hat - y).square().sum(-1))

    net = GaussianEnsemble(2, 2, members=2, hidden=(8,), generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 5, 2, generator=generator)
    objective = PolicyGradient(Wrong(), estimator=estimator, samples=4)
    with pytest.raises(InputError, match=r"one number per generation, \[4, 2, 5\]"):
        objective(net, x, y, generator)
