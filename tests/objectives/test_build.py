"""What settings of an objective build: the kind of network, and what bilevel follows."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.implicit import Implicit
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.mean_reward import MeanReward
from mbrl_bilevel.objectives.outer_data import OuterWindows
from mbrl_bilevel.objectives.settings import BilevelSettings, NLLSettings, TwoMeansSettings
from tests.objectives.swirling_system import model_of, samples_of, swirling

STEP = 1e-4  # of finite differences, whose error is of its square


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def curved(episodes=12, length=10):
    """A change that no linear model fits, with noise that grows along x."""
    g, count = seeded(), episodes * length
    obs, act = torch.randn(count, 1, generator=g), torch.randn(count, 1, generator=g)
    noise = 0.3 * torch.exp(0.5 * obs) * torch.randn(count, 1, generator=g)
    change = obs.square() + 0.5 * act + noise
    never, episode = torch.zeros(count).bool(), torch.arange(count) // length
    return Transitions(obs, act, change[:, 0], obs + change, never, never, episode)


@pytest.fixture
def one_step():
    """Bilevel by the likelihood of one step, a linear model, a batch of all rows, in float64."""
    model = DynamicsModel(1, 1, ModelSettings(members=1, hidden=()), generator=seeded())
    data = curved()
    model.fit_standardizers(data)
    settings = BilevelSettings(
        outer_objective="one_step", outer_data="held_out", outer_batch_size=len(data.reward)
    )
    objective = settings.build(model, data, data, steps=100, generator=seeded(1))
    network, inner = model.network.double(), objective.inner.double()
    with torch.no_grad():  # a reward that differs from row to row, as in the middle of a training
        for p in inner.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=seeded(2)).double())
    x, y = (part.double().unsqueeze(0) for part in model.encode(data))
    half = len(data.reward) // 2
    batches = (x[:, :half], y[:, :half]), (x[:, half:], y[:, half:])
    return objective, network, inner, batches


def solved(problem, theta, phi, data):
    """theta*(phi) by Newton steps on the dense Hessian, to rounding."""
    names, sizes = list(theta), [p.numel() for p in theta.values()]

    def unflatten(flat: Tensor):
        parts = flat.split(sizes)
        return {n: v.view_as(theta[n]) for n, v in zip(names, parts, strict=True)}

    def loss(flat: Tensor):
        return problem.inner(unflatten(flat), phi, data).sum()

    flat = torch.cat([p.flatten() for p in theta.values()])
    for _ in range(30):
        gradient = torch.autograd.functional.jacobian(loss, flat)
        hessian = torch.autograd.functional.hessian(loss, flat)
        flat = flat - torch.linalg.solve(hessian, gradient)
    assert torch.autograd.functional.jacobian(loss, flat).abs().max() < 1e-12
    return unflatten(flat)


def detached(module):
    return {k: p.detach().clone() for k, p in module.named_parameters() if p.requires_grad}


def test_one_step_differentiates_through_the_inner_solution(one_step):
    """Its implicit term is not 0, and is that of finite differences of the fully solved problem.

    Solved to the end; five damped products a step, from where the last step ended, come close.
    """
    objective, network, inner, (inner_batch, outer_batch) = one_step
    problem = inner.bilevel_problem(network)
    data = inner.frozen_batch(network, *inner_batch, seeded())
    theta, phi = detached(network), detached(inner)
    theta = solved(problem, theta, phi, data)

    name = max(phi, key=lambda k: phi[k].numel())
    direction = torch.randn(phi[name].shape, generator=seeded(5)).double()

    def outer(step: float):
        moved = phi | {name: phi[name] + step * direction}
        return problem.outer(solved(problem, theta, moved, data), moved, outer_batch).item()

    expected = (outer(STEP) - outer(-STEP)) / (2 * STEP)
    # The outer loss reads no reward: all of its gradient goes through the inner solution.
    explicit = problem.outer(theta, {k: p + 1.0 for k, p in phi.items()}, outer_batch)
    assert explicit.item() == problem.outer(theta, phi, outer_batch).item()
    assert abs(expected) > 1e-3

    estimator = objective.outer_step.estimator
    assert isinstance(estimator, Implicit)
    exact = replace(estimator, damping=0.0, max_iterations=200)
    found = exact(problem, theta, phi, data, outer_batch)
    assert (found.grad[name] * direction).sum().item() == pytest.approx(expected, rel=1e-5)

    with torch.no_grad():
        for k, p in network.named_parameters():
            p.copy_(theta[k])
    for _ in range(20):
        step = objective.outer_step(network, inner, inner_batch, outer_batch, seeded())
    close = torch.nn.functional.cosine_similarity(
        *(torch.cat([g[k].flatten() for k in found.grad]) for g in (found.grad, step.grad)), dim=0
    )
    assert close > 0.95


def test_the_default_of_bilevel_learns_weights_of_the_mean_by_windows_of_left_out_episodes():
    data = swirling(episodes=12, length=15)
    model = model_of(data, members=2, hidden=(8,))
    objective = BilevelSettings(outer_horizon=12).build(
        model, data, data, steps=1000, generator=seeded()
    )
    assert isinstance(objective.inner, MeanReward)
    assert objective.inner.log_weight.shape == (3,)
    assert isinstance(objective.outer.batches, OuterWindows)
    batch = next(objective.outer.batches)
    assert batch.observations.shape[2:] == (12, 2)
    assert batch.rewards.shape[2:] == (12,)
    assert all(len(set(rows.tolist()) & set(range(180))) < 180 for rows in objective.rows)
    estimator = objective.outer_step.estimator
    assert isinstance(estimator.curvature, GaussNewton)
    assert objective.every == 20
    assert objective.optimizer.param_groups[0]["lr"] == pytest.approx(4e-2)
    held_out = BilevelSettings(outer_data="held_out").build(
        model, data, data, steps=1000, generator=seeded()
    )
    assert held_out.rows is None


def test_fisher_products_of_the_mean_need_no_diagonal_covariance():
    data = swirling(episodes=12, length=15)
    model = model_of(data, members=2, hidden=(8,), covariance="full")
    objective = BilevelSettings().build(model, data, data, steps=100, generator=seeded())
    objective.inner.double()
    metrics = objective.after_step(model.network, samples_of(model, data), 20, seeded())
    assert metrics["hypergradient_norm"] > 0
    one_step = BilevelSettings(outer_objective="one_step", hypergradient="fisher")
    with pytest.raises(InputError, match="fisher is for --covariance diagonal"):
        one_step.build(model, data, data, steps=100, generator=seeded())


def test_a_network_of_another_kind_is_refused():
    data = curved()
    model = DynamicsModel(1, 1, ModelSettings(members=2, hidden=(4,)), generator=seeded())
    model.fit_standardizers(data)
    with pytest.raises(InputError, match="two_means trains a network of kind 'two_means'"):
        TwoMeansSettings().build(model, data, data, steps=1, generator=seeded())
    model = DynamicsModel(
        1, 1, ModelSettings(members=2, hidden=(4,)), kind="two_means", generator=seeded()
    )
    with pytest.raises(InputError, match="the model has one of kind 'two_means'"):
        NLLSettings().build(model, data, data, steps=1, generator=seeded())
