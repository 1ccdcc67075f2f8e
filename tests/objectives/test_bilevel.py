"""The bilevel objective in the fit loop: it finds U*, leaves nothing behind and resumes exactly."""

import pytest
import torch

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.implicit import Implicit
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.bilevel import Bilevel, OuterBatches, fisher_metric, training_problem
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.objectives.weights import PrecisionWeights
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis
from mbrl_bilevel.training.batches import cross_fit
from mbrl_bilevel.training.fit import fit
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.trainer import Samples

STD = torch.tensor([0.1, 0.6])


def noisy(count=4000, seed=0, by_input=False):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, generator=g)
    std = STD * torch.exp(0.8 * x[:, :1]) if by_input else STD
    return Samples(
        x, x @ torch.tensor([[1.0, -1.0], [0.5, 2.0]]) + std * torch.randn(count, 2, generator=g)
    )


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def bilevel(outer, *, members=2, inputs=None, lam=1.0, weights=False, estimator=None, steps=800):
    reward = Mahalanobis(2, initial=0.5 * lam, inputs=inputs, generator=seeded())
    power = PrecisionWeights(reward, lam, 0.5) if weights else None
    inner = PolicyGradient(reward, lam=lam, weights=power)
    if estimator == "fisher":
        estimator = Implicit(
            GaussNewton(fisher_metric(inner)), damping=1e-2, max_iterations=5, warn=False,
            check_every=None,
        )  # fmt: skip
    rows = torch.arange(len(outer.x)).expand(members, -1)
    batches = OuterBatches(*outer, rows, 256, seeded(2))
    return Bilevel(inner, batches, estimator=estimator, learning_rate=0.02, steps=steps)


@pytest.mark.parametrize(
    ("lam", "estimator"),
    [
        (0.5, None),
        (1.0, None),
        (4.0, None),
        (1.0, "fisher"),
        pytest.param(0.5, "fisher", marks=pytest.mark.slow),
        pytest.param(4.0, "fisher", marks=pytest.mark.slow),
    ],
)
def test_a_global_reward_reaches_its_closed_form(lam, estimator):
    """U* = (lam / 2) Sigma^-1 and S = Sigma (theory T3, T4), whatever lambda."""
    inner, outer = noisy(seed=0), noisy(seed=1)
    net = GaussianEnsemble(2, 2, members=2, hidden=(), generator=seeded())
    objective = bilevel(outer, lam=lam, estimator=estimator)
    fit(
        net, objective, inner, outer, generator=seeded(), steps=800, batch_size=256,
        learning_rate=0.05, patience=None,
    )  # fmt: skip
    # 4,000 residuals give a standard deviation to 1.1 %, minibatches of 256 a little less
    found = objective.inner.reward.precision_diagonal()
    torch.testing.assert_close((0.5 * lam / found).sqrt(), STD, rtol=0.06, atol=0)
    torch.testing.assert_close(net(outer.x).std.mean((0, 1)), STD, rtol=0.06, atol=0)


def test_an_input_dependent_reward_follows_the_noise():
    inner, outer = noisy(seed=0, by_input=True), noisy(seed=1, by_input=True)
    net = GaussianEnsemble(2, 2, members=2, hidden=(32,), generator=seeded())
    objective = bilevel(outer, inputs=2, weights=True)
    fit(
        net, objective, inner, outer, generator=seeded(), steps=800, batch_size=256,
        learning_rate=0.01, patience=None,
    )  # fmt: skip
    x = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    truth = STD * torch.exp(0.8 * x[:, :1])
    asked = (0.5 / objective.inner.reward.precision_diagonal(x)).sqrt()
    torch.testing.assert_close(asked, truth, rtol=0.25, atol=0)
    torch.testing.assert_close(net(x).std.mean(0), truth, rtol=0.25, atol=0)


def test_an_implicit_step_moves_the_parameters_that_the_optimiser_holds():
    """The weights share the reward; swapping parameters in and out must leave the originals."""
    data = noisy(200)
    objective = bilevel(data, inputs=2, weights=True, estimator="fisher", steps=5)
    before = {k: p.detach().clone() for k, p in objective.inner.named_parameters()}
    held = {id(p) for p in objective.optimizer.param_groups[0]["params"]}
    net = GaussianEnsemble(2, 2, members=2, hidden=(8,), generator=seeded())
    x, y = data.x[:32].expand(2, -1, -1), data.y[:32].expand(2, -1, -1)
    for step in (2, 4):
        objective(net, x, y, seeded())
        objective.after_step(net, step, seeded())
    after = dict(objective.inner.named_parameters())
    assert held == {id(p) for p in after.values() if p.requires_grad}
    assert (after["reward.log_diagonal"] - before["reward.log_diagonal"]).abs().min() > 1e-3


def test_the_closed_form_step_is_the_gradient_of_theory_t6():
    data = noisy(64)
    objective = bilevel(data, members=2)
    net = GaussianEnsemble(2, 2, members=2, hidden=(8,), generator=seeded())
    U = objective.inner.reward.precision_diagonal().detach()
    objective.after_step(net, 2, seeded())
    residual = net(data.x).mean - data.y
    covariance = residual.square().mean((0, 1))
    by_u = covariance / 1.0 - 0.5 / U  # dF/dU_ii; d/d log L_ii = 2 U dF/dU
    torch.testing.assert_close(
        objective.inner.reward.log_diagonal.grad, 2 * U * by_u.detach(), rtol=1e-4, atol=1e-5
    )


def test_the_fisher_metric_is_the_output_hessian_at_the_inner_optimum():
    g = seeded()
    reward = Mahalanobis(2, inputs=2, initial=torch.tensor([0.7, 3.0]), generator=g).double()
    inner = PolicyGradient(reward, weights=PrecisionWeights(reward, 1.0, 0.5))
    x, y = torch.randn(1, 5, 2, generator=g).double(), torch.randn(1, 5, 2, generator=g).double()
    net = GaussianEnsemble(2, 2, members=1, hidden=(4,), generator=g).double()
    problem = training_problem(net, inner)
    phi = {k: p.detach() for k, p in inner.named_parameters() if p.requires_grad}
    optimum = 0.5 * torch.log(0.5 / reward.precision_diagonal(x))
    output = torch.cat([y, optimum], -1).detach()
    hessian = torch.autograd.functional.hessian(
        lambda o: problem.output_loss(o, phi, (x, y, None)).sum(), output
    )
    expected = torch.stack([hessian[0, b, :, 0, b] for b in range(5)]).unsqueeze(0)
    torch.testing.assert_close(
        fisher_metric(inner)(output, phi, (x, y, None)), expected, rtol=1e-9, atol=1e-9
    )


class Killed(Exception):
    pass


@pytest.mark.parametrize("estimator", [None, "fisher"])
def test_a_resumed_bilevel_fit_ends_bit_for_bit_the_same(tmp_path, estimator):
    data = noisy(300)

    def run(folder, resume, die_at=None):
        net = GaussianEnsemble(2, 2, members=2, hidden=(8,), generator=seeded())
        objective = bilevel(data, inputs=2, weights=True, estimator=estimator, steps=60)

        def die(step):
            if die_at is not None and step >= die_at:
                raise Killed

        with RunFolder(tmp_path / folder, {}, resume=resume) as opened:
            fit(
                net, objective, data, data, generator=seeded(), steps=60, batch_size=64,
                evaluate_every=10, run=opened, resume=resume, checkpoint_seconds=0.0,
                on_evaluation=die,
            )  # fmt: skip
        return [*net.parameters(), *objective.inner.parameters()]

    whole = run("whole", False)
    with pytest.raises(Killed):
        run("killed", False, die_at=30)
    assert all(torch.equal(a, b) for a, b in zip(whole, run("killed", True), strict=True))


def test_cross_fitting_leaves_every_row_out_from_exactly_one_member():
    episode = torch.repeat_interleave(torch.arange(11), torch.arange(3, 14))
    inside, outside = cross_fit(episode, 4, seeded())
    for e in range(4):
        kept, left = set(inside[e].tolist()), set(outside[e].tolist())
        assert kept | left == set(range(len(episode)))
        assert not set(episode[list(kept)].tolist()) & set(episode[list(left)].tolist())
    left_out = torch.cat([row.unique() for row in outside])
    assert left_out.sort().values.tolist() == list(range(len(episode)))


@pytest.mark.parametrize(("members", "episodes"), [(1, 5), (4, 3)])
def test_cross_fitting_needs_members_and_episodes(members, episodes):
    with pytest.raises(InputError, match="held-out outer data"):
        cross_fit(torch.arange(episodes), members, seeded())


def test_nothing_to_learn_and_no_interval_are_refused():
    data = noisy(50)
    reward = Mahalanobis(2).requires_grad_(False)
    batches = OuterBatches(*data, torch.arange(50).expand(2, -1), 8, seeded())
    with pytest.raises(InputError, match="no reward parameters"):
        Bilevel(PolicyGradient(reward), batches)
    with pytest.raises(InputError, match="every 0 inner steps"):
        Bilevel(PolicyGradient(Mahalanobis(2)), batches, every=0)
