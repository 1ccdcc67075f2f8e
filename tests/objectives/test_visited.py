"""Rows weighted by where a policy goes in the model: weights, imagined paths, losses and resume."""

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives import visited
from mbrl_bilevel.objectives.network_problem import training_problem
from mbrl_bilevel.objectives.outer_objectives import visited_error
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.objectives.settings import BilevelSettings, NLLSettings
from mbrl_bilevel.objectives.visited import (
    REFRESH_EVERY,
    VisitedBatch,
    VisitedBatches,
    imagined_inputs,
    visit_weights,
)
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.loop import Callback
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from tests.objectives.swirling_system import model_of, samples_of, seeded, swirling

VISITED = {"outer_objective": "visited", "visited_by": "a policy"}


def back_to_rest(obs):
    return -0.5 * obs[..., :1]


def counted(x, seen, neighbours, uniform):
    """Row by row: every imagined input gives its nearest rows equal parts of one count."""
    weights = []
    for own, points in zip(x, seen, strict=True):
        counts = [0.0] * len(own)
        for point in points:
            order = sorted(range(len(own)), key=lambda m: (own[m] - point).norm().item())
            for m in order[:neighbours]:
                counts[m] += 1 / neighbours
        scale = len(own) / len(points)
        weights.append([uniform + (1 - uniform) * scale * c for c in counts])
    return torch.tensor(weights, dtype=x.dtype)


@pytest.mark.parametrize("in_memory", [2**24, 1])
def test_weights_are_counts_of_nearest_rows(monkeypatch, in_memory):
    """Whether or not all distances fit into memory at once."""
    monkeypatch.setattr(visited, "LARGEST", in_memory)
    g = seeded()
    x, seen = (torch.randn(2, n, 3, generator=g).double() for n in (11, 29))
    x[:, 4] += 9.0
    found = visit_weights(x, seen, neighbours=3, uniform=0.25)
    torch.testing.assert_close(found, counted(x, seen, 3, 0.25))
    torch.testing.assert_close(found.mean(1), torch.ones(2).double())
    assert found[:, 4].tolist() == [0.25, 0.25]  # nothing comes near it
    few = visit_weights(x[:, :2], seen, neighbours=5, uniform=0.25)  # all rows are the nearest
    torch.testing.assert_close(few, torch.ones(2, 2).double())


def test_imagined_paths_follow_policy_and_model_step_by_step(monkeypatch):
    """Beside the model's own steps, member by member, without noise; all within its range."""
    monkeypatch.setattr(visited, "draw", lambda gaussian, generator: gaussian.mean)
    data = swirling()
    model = model_of(data, members=2, hidden=(8,))
    start = data.observation[torch.tensor([[0, 25, 60], [110, 111, 3]])]
    found = imagined_inputs(model, back_to_rest, start, 4, seeded()).unflatten(1, (4, 3))
    for e in range(2):
        obs = start[e]
        for t in range(4):
            act = back_to_rest(obs)
            torch.testing.assert_close(found[e, t], model.inputs(obs, act))
            obs = model.next_step(obs, model.predict(obs, act).mean[e].detach()).observation


def test_imagined_steps_are_drawn_from_the_members_own_gaussians():
    data = swirling()
    model = model_of(data, members=2, hidden=(8,))
    start = data.observation[5].expand(2, 4000, -1)
    second = imagined_inputs(model, back_to_rest, start, 2, seeded())[:, 4000:, :2]
    gaussian = model.predict(start[0, :1], back_to_rest(start[0, :1]))
    inputs = model.input_standardizer
    after = (second * inputs.std[:2] + inputs.mean[:2]) - start
    # The standard error of a deviation of 4,000 samples is 1.1 %; few of them are clamped.
    expected = gaussian.std[..., :2].detach().squeeze(1)
    torch.testing.assert_close(after.std(1), expected, rtol=0.05, atol=0)
    mean = gaussian.mean[..., :2].detach().squeeze(1)
    torch.testing.assert_close(after.mean(1) / expected, mean / expected, rtol=0, atol=0.06)


def repeated(batch, times):
    """Rows of whole weights as rows of weight 1, as often."""
    return tuple(part.repeat_interleave(times, 1) for part in batch[:2])


def test_a_weight_counts_as_that_many_rows():
    data = swirling()
    model = model_of(data, members=2, hidden=(8,), learn_reward=False)
    x, y = (part[:, :4] for part in samples_of(model, data))
    times = torch.tensor([0, 1, 1, 2])
    batch = VisitedBatch(x, y, times.double().expand(2, -1))
    plain = VisitedBatch(*repeated(batch, times), torch.ones(2, 4).double())

    def mean(x):
        return model.network(x).mean

    torch.testing.assert_close(visited_error(mean, batch), visited_error(mean, plain))
    problem = training_problem(model.network, PolicyGradient(Mahalanobis(2).double()), lam=1.0)
    theta = {k: p.detach() for k, p in model.network.named_parameters()}
    nll = -functional_call(model.network, theta, (plain.x,)).log_prob(plain.y).mean(-1).sum()
    torch.testing.assert_close(problem.outer(theta, {}, batch), nll)


def batches_of(model, data, rows):
    return VisitedBatches(
        model, back_to_rest, data, rows, horizon=3, batch_size=16, generator=seeded(5)
    )


def test_batches_hold_rows_with_their_weights_and_new_ones_once_the_model_has_moved():
    data = swirling()
    model = model_of(data, members=2, hidden=(8,))
    rows = torch.stack([torch.arange(0, 60), torch.arange(100, 160)])
    batches = batches_of(model, data, rows)
    batch = next(batches)
    first = batches.weight
    places = {tuple(x.tolist()): m for m, x in enumerate(batches.x[rows[1]])}
    for x, y, weight in zip(batch.x[1], batch.y[1], batch.weight[1], strict=True):
        m = places[tuple(x.tolist())]
        torch.testing.assert_close(y, batches.y[rows[1, m]])
        assert weight == first[1, m]
    share = first / first.sum(1, keepdim=True)
    effective = batches.metrics()["visited_rows"].item()
    assert effective == pytest.approx((1 / share.square().sum(1)).mean().item())
    assert effective < 60
    for _ in range(REFRESH_EVERY - 1):
        next(batches)
    assert batches.weight is first
    next(batches)
    assert not torch.equal(batches.weight, first)


class Killed(Exception):
    pass


class KilledAt(Callback):
    """Kills a fit at an evaluation, before it is logged or saved."""

    def __init__(self, step):
        self.step = step

    def after_step(self, training):
        if training.metrics and self.step is not None and training.step >= self.step:
            raise Killed


@pytest.mark.parametrize("reward", ["mean", "diagonal_x"])
def test_a_resumed_fit_ends_bit_for_bit_the_same(tmp_path, reward):
    """It is killed between two refreshes of the weights, and goes through more of them after."""
    data = swirling(episodes=12, length=15)

    def run(folder, resume, die_at=None):
        model = model_of(data, members=2, hidden=(8,)).float()
        settings = BilevelSettings(
            **VISITED, reward=reward, outer_every=2, outer_batch_size=16, outer_horizon=5
        )
        with RunFolder(tmp_path / folder, {}, resume=resume) as opened:
            objective = settings.build(
                model, data, data, steps=60, generator=seeded(1), policy=back_to_rest
            )
            fit_network(
                model.network,
                objective,
                Samples(*model.encode(data)),
                Samples(*model.encode(data)),
                generator=seeded(2),
                run=opened,
                checkpoint_seconds=0.0,
                callbacks=[KilledAt(die_at)],
                settings=FitSettings(steps=60, batch_size=32, evaluate_every=10),
            )
        assert isinstance(objective.outer.batches, VisitedBatches)
        return [*model.network.parameters(), *objective.inner.parameters()]

    whole = run("whole", False)
    with pytest.raises(Killed):
        run("killed", False, die_at=40)
    assert all(torch.equal(a, b) for a, b in zip(whole, run("killed", True), strict=True))


def test_a_policy_is_needed_and_only_there():
    data = swirling(episodes=12, length=15)
    model = model_of(data, members=2, hidden=(8,))
    made = {"steps": 10, "generator": seeded()}
    with pytest.raises(InputError, match="give the policy that --visited-by names"):
        BilevelSettings(**VISITED).build(model, data, data, **made)
    for settings in (NLLSettings(), BilevelSettings(outer_horizon=5)):
        with pytest.raises(InputError, match="follows no policy: leave it out"):
            settings.build(model, data, data, **made, policy=back_to_rest)


def test_episodes_shorter_than_the_horizon_are_no_hindrance():
    """Imagined steps go on where no recorded ones do."""
    data = swirling(episodes=12, length=3)
    model = model_of(data, members=2, hidden=(8,))
    settings = BilevelSettings(**VISITED, outer_horizon=8)
    objective = settings.build(model, data, data, steps=10, generator=seeded(), policy=back_to_rest)
    assert next(objective.outer.batches).weight.shape[0] == 2
    with pytest.raises(InputError, match="--outer-horizon 8"):
        replace(settings, outer_objective="k_step", visited_by=None).build(
            model, data, data, steps=10, generator=seeded()
        )
