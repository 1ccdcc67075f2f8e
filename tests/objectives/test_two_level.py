"""An objective of two levels in a fit: it finds U*, leaves nothing behind and resumes exactly."""

import json
import math
from functools import partial

import pytest
import torch

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.hypergradient import ConvergenceWarning
from mbrl_bilevel.bilevel.implicit import Implicit
from mbrl_bilevel.bilevel.soba import Soba
from mbrl_bilevel.bilevel.unrolled import Unrolled
from mbrl_bilevel.bilevel.value_gap import ValueGap
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.outer_data import OuterBatches, OuterData
from mbrl_bilevel.objectives.outer_steps import (
    LARGEST_NORM,
    ClosedForm,
    HypergradientStep,
    SobaStep,
)
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.objectives.two_level import TwoLevel
from mbrl_bilevel.objectives.weights import PrecisionWeights
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.loop import Callback
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.trainer import Trainer

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


def fisher(inner, net, max_residual=None):
    curvature = GaussNewton(inner.bilevel_problem(net).output_metric)
    return Implicit(
        curvature, damping=1e-2, max_iterations=5, warn=False,
        check_every=None, max_residual=max_residual,
    )  # fmt: skip


def soba(inner, net, averaging=1.0):
    problem = inner.bilevel_problem(net)
    return Soba(problem, GaussNewton(problem.output_metric), damping=1e-3, averaging=averaging)


NAMED = {
    "fisher": fisher,
    "fallback": partial(fisher, max_residual=1e-3),
    "soba": soba,
    "ma_soba": partial(soba, averaging=0.1),
    "unrolled": lambda inner, net: Unrolled(5),
    "value_gap": lambda inner, net: ValueGap(3e-4, steps=5),
}


def two_level(
    outer,
    *,
    members=2,
    inputs=None,
    lam=1.0,
    weights=False,
    estimator=None,
    steps=800,
    net=None,
    rate=0.02,
):
    reward = Mahalanobis(2, initial=0.5 * lam, inputs=inputs, generator=seeded())
    power = PrecisionWeights(reward, lam, 0.5) if weights else None
    inner = PolicyGradient(reward, lam=lam, weights=power)
    if isinstance(estimator, str):
        estimator = NAMED[estimator](inner, net)
    rows = torch.arange(len(outer.x)).expand(members, -1)
    batches = OuterData(OuterBatches(*outer, rows, 256, seeded(2)))
    step = _outer_step(estimator)
    return TwoLevel(inner, batches, step, every=2, learning_rate=rate, steps=steps)


def _outer_step(estimator):
    if estimator is None:
        return ClosedForm()
    return SobaStep(estimator) if isinstance(estimator, Soba) else HypergradientStep(estimator)


@pytest.mark.parametrize(
    ("lam", "estimator"),
    [
        (0.5, None),
        (1.0, None),
        (4.0, None),
        (1.0, "fisher"),
        pytest.param(0.5, "fisher", marks=pytest.mark.slow),
        pytest.param(4.0, "fisher", marks=pytest.mark.slow),
        *(pytest.param(1.0, n, marks=pytest.mark.slow) for n in ("soba", "ma_soba", "unrolled")),
    ],
)
def test_a_global_reward_reaches_its_closed_form(lam, estimator):
    """U* = (lam / 2) Sigma^-1 and S = Sigma (theory T3, T4), whatever lambda.

    Where the linear system is never solved, but followed or cut short, the outer level takes three
    times the steps; at a quarter of the rate where it has to keep up (soba).
    """
    cheap = estimator in ("soba", "ma_soba", "unrolled")
    steps, rate = (2400 if cheap else 800), (0.005 if "soba" in str(estimator) else 0.02)
    inner, outer = noisy(seed=0), noisy(seed=1)
    net = GaussianEnsemble(2, 2, members=2, hidden=(), generator=seeded())
    objective = two_level(outer, lam=lam, estimator=estimator, net=net, steps=steps, rate=rate)
    fit_network(
        net,
        objective,
        inner,
        outer,
        generator=seeded(),
        settings=FitSettings(steps=steps, batch_size=256, learning_rate=0.05, patience=None),
    )
    # 4,000 residuals give a standard deviation to 1.1 %, minibatches of 256 a little less
    found = objective.inner.reward.precision_diagonal()
    torch.testing.assert_close((0.5 * lam / found).sqrt(), STD, rtol=0.06, atol=0)
    torch.testing.assert_close(net(outer.x).std.mean((0, 1)), STD, rtol=0.06, atol=0)


def test_an_input_dependent_reward_follows_the_noise():
    inner, outer = noisy(seed=0, by_input=True), noisy(seed=1, by_input=True)
    net = GaussianEnsemble(2, 2, members=2, hidden=(32,), generator=seeded())
    objective = two_level(outer, inputs=2, weights=True)
    fit_network(
        net,
        objective,
        inner,
        outer,
        generator=seeded(),
        settings=FitSettings(steps=800, batch_size=256, learning_rate=0.01, patience=None),
    )
    x = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    truth = STD * torch.exp(0.8 * x[:, :1])
    asked = (0.5 / objective.inner.reward.precision_diagonal(x)).sqrt()
    torch.testing.assert_close(asked, truth, rtol=0.25, atol=0)
    torch.testing.assert_close(net(x).std.mean(0), truth, rtol=0.25, atol=0)


def test_an_implicit_step_moves_the_parameters_that_the_optimiser_holds():
    """The weights share the reward; swapping parameters in and out must leave the originals."""
    data = noisy(200)
    net = GaussianEnsemble(2, 2, members=2, hidden=(8,), generator=seeded())
    objective = two_level(data, inputs=2, weights=True, estimator="fisher", steps=5, net=net)
    before = {k: p.detach().clone() for k, p in objective.inner.named_parameters()}
    held = {id(p) for p in objective.optimizer.param_groups[0]["params"]}
    x, y = data.x[:32].expand(2, -1, -1), data.y[:32].expand(2, -1, -1)
    for step in (2, 4):
        objective(net, x, y, seeded())
        objective.after_step(net, (x, y), step, seeded())
    after = dict(objective.inner.named_parameters())
    assert held == {id(p) for p in after.values() if p.requires_grad}
    assert (after["reward.log_diagonal"] - before["reward.log_diagonal"]).abs().min() > 1e-3


def test_the_closed_form_step_is_the_gradient_of_theory_t6():
    data = noisy(64)
    objective = two_level(data, members=2)
    net = GaussianEnsemble(2, 2, members=2, hidden=(8,), generator=seeded())
    U = objective.inner.reward.precision_diagonal().detach()
    batch = data.x.expand(2, -1, -1), data.y.expand(2, -1, -1)
    objective.after_step(net, batch, 2, seeded())
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
    problem = inner.bilevel_problem(net)
    phi = {k: p.detach() for k, p in inner.named_parameters() if p.requires_grad}
    optimum = 0.5 * torch.log(0.5 / reward.precision_diagonal(x))
    output = torch.cat([y, optimum], -1).detach()
    hessian = torch.autograd.functional.hessian(
        lambda o: problem.output_loss(o, phi, (x, y, None)).sum(), output
    )
    expected = torch.stack([hessian[0, b, :, 0, b] for b in range(5)]).unsqueeze(0)
    metric = problem.output_metric(output, phi, (x, y, None))
    torch.testing.assert_close(metric, expected, rtol=1e-9, atol=1e-9)


class Killed(Exception):
    pass


class KilledAt(Callback):
    """Kills a fit at an evaluation, before it is logged or saved."""

    def __init__(self, step):
        self.step = step

    def after_step(self, training):
        if training.metrics and self.step is not None and training.step >= self.step:
            raise Killed


@pytest.mark.parametrize("estimator", [None, "fisher", "ma_soba"])
def test_a_resumed_fit_ends_bit_for_bit_the_same(tmp_path, estimator):
    data = noisy(300)

    def run(folder, resume, die_at=None):
        net = GaussianEnsemble(2, 2, members=2, hidden=(8,), generator=seeded())
        objective = two_level(data, inputs=2, weights=True, estimator=estimator, steps=60, net=net)

        with RunFolder(tmp_path / folder, {}, resume=resume) as opened:
            fit_network(
                net,
                objective,
                data,
                data,
                generator=seeded(),
                run=opened,
                checkpoint_seconds=0.0,
                callbacks=[KilledAt(die_at)],
                settings=FitSettings(steps=60, batch_size=64, evaluate_every=10),
            )
        return [*net.parameters(), *objective.inner.parameters()]

    whole = run("whole", False)
    with pytest.raises(Killed):
        run("killed", False, die_at=30)
    assert all(torch.equal(a, b) for a, b in zip(whole, run("killed", True), strict=True))


def test_nothing_to_learn_and_no_interval_are_refused():
    data = noisy(50)
    reward = Mahalanobis(2).requires_grad_(False)
    batches = OuterData(OuterBatches(*data, torch.arange(50).expand(2, -1), 8, seeded()))
    with pytest.raises(InputError, match="no parameters to learn"):
        TwoLevel(PolicyGradient(reward), batches)
    with pytest.raises(InputError, match="every 0 inner steps"):
        TwoLevel(PolicyGradient(Mahalanobis(2)), batches, every=0)
    with pytest.raises(InputError, match="outer learning rate of 0"):
        TwoLevel(PolicyGradient(Mahalanobis(2)), batches, learning_rate=0.0)


def untrained(data, estimator):
    net = GaussianEnsemble(2, 2, members=2, hidden=(8,), generator=seeded())
    return net, two_level(data, inputs=2, weights=True, estimator=estimator, steps=5, net=net)


def outer_steps(objective, net, data, count):
    x, y = data.x[:32].expand(2, -1, -1), data.y[:32].expand(2, -1, -1)
    figures = []
    for step in range(2, 2 * count + 2, 2):
        objective(net, x, y, seeded())
        figures.append(objective.after_step(net, (x, y), step, seeded()))
    return figures


@pytest.mark.parametrize("estimator", [None, *NAMED])
def test_the_outer_optimiser_is_one_over_all_steps(estimator):
    """A new Adam at every outer step is sign descent of fixed length, which cannot settle."""
    net, objective = untrained(noisy(200), estimator)
    outer_steps(objective, net, noisy(200), 3)
    found = {float(s["step"]) for s in objective.optimizer.state.values()}
    assert found == {3.0}


@pytest.mark.parametrize("estimator", [None, "fisher", "soba"])
def test_a_frozen_reward_rests(estimator):
    net, objective = untrained(noisy(200), estimator)
    before = [p.detach().clone() for p in objective.inner.parameters()]
    objective.freeze()
    assert outer_steps(objective, net, noisy(200), 2) == [{}, {}]
    after = objective.inner.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_direction_without_bound_is_clipped_and_one_that_is_not_finite_skipped():
    net, objective = untrained(noisy(200), "unrolled")
    data = noisy(200)
    objective.outer.batches.y = 1e6 * data.y
    outer_steps(objective, net, data, 1)
    size = torch.stack([p.grad.norm() for p in objective.inner.parameters() if p.requires_grad])
    assert size.norm().item() == pytest.approx(LARGEST_NORM, rel=1e-4)
    objective.outer.batches.y = math.nan * data.y
    outer_steps(objective, net, data, 1)
    assert all((p.grad == 0).all() for p in objective.inner.parameters() if p.requires_grad)


def test_unsolved_systems_are_warned_of_once_and_counted_to_the_end(tmp_path):
    """5 products never reach a residual of 1e-3 here: both members of every outer step fall back.

    30 outer steps less those of the warm-up (6 inner steps): 27. The count survives a resume.
    """
    data = noisy(300)

    def run(resume, die_at=None):
        net = GaussianEnsemble(2, 2, members=2, hidden=(8,), generator=seeded())
        objective = two_level(data, inputs=2, estimator="fallback", steps=60, net=net)

        with RunFolder(tmp_path / "run", {}, resume=resume) as opened:
            fit_network(
                net,
                objective,
                data,
                data,
                generator=seeded(),
                run=opened,
                checkpoint_seconds=0.0,
                callbacks=[KilledAt(die_at)],
                settings=FitSettings(steps=60, batch_size=64, evaluate_every=20),
            )

    words = "left unsolved .* first-order direction"
    with pytest.warns(ConvergenceWarning, match=words) as found, pytest.raises(Killed):
        run(False, die_at=60)
    assert len(found) == 1
    with pytest.warns(ConvergenceWarning):
        run(True)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    counts = {(r := json.loads(line))["step"]: r["outer/linear_fallbacks"] for line in lines}
    assert counts == {20: 14, 40: 34, 60: 54}


@pytest.mark.parametrize("log_diagonal", [60.0, -60.0, math.nan])
def test_a_reward_that_runs_away_is_said(log_diagonal):
    """exp(120) overflows, exp(-120) is zero in float32."""
    data = noisy(100)
    net, objective = untrained(data, None)
    objective.calibrate(net, *data)
    with torch.no_grad():
        objective.inner.reward.log_diagonal[0] = log_diagonal
    with pytest.raises(TrainingDiverged, match="learned reward diverged"):
        objective.calibrate(net, *data)


def test_an_outer_step_that_is_not_finite_is_skipped_and_counted():
    """phi coasts by its momentum for that step and stays finite."""
    data = noisy(300)
    net = GaussianEnsemble(2, 2, members=2, hidden=(8,), generator=seeded())
    objective = two_level(data, inputs=2, steps=60)
    trainer = Trainer(
        net, objective, data, data, seeded(), settings=FitSettings(batch_size=64, steps=60)
    )
    for _ in range(10):
        trainer.train_step()
    objective.outer.batches.y = data.y * torch.nan
    for _ in range(4):
        trainer.train_step()
    objective.outer.batches.y = data.y
    trainer.train_step()
    assert trainer.counts["outer/skipped_steps"] == 2
    assert all(p.isfinite().all() for p in objective.inner.parameters())
    assert trainer.metrics()["outer/skipped_steps"] == 2


def test_a_slower_outer_level_is_resumed_as_slow():
    """Half the pace from a step on, whether or not the state went through a checkpoint."""

    def rates(resumed):
        objective = two_level(noisy(100), steps=40)
        objective.optimizer.step()
        objective.schedule.step()
        objective.scale_learning_rate(0.5)
        if resumed:
            state, objective = objective.state(), two_level(noisy(100), steps=40)
            objective.load_state(state)
        found = []
        for _ in range(19):
            objective.optimizer.step()
            objective.schedule.step()
            found.append(objective.optimizer.param_groups[0]["lr"])
        return found

    assert rates(True) == rates(False)
    assert rates(False)[-1] == pytest.approx(0.5 * 0.01 * 0.02)
