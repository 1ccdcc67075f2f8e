"""Windows of the outer level: steps that were recorded in a row, all of them left out."""

from dataclasses import replace

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.outer_data import OuterWindows, cross_fitted
from mbrl_bilevel.objectives.settings import BilevelSettings
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.loop import Callback
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from tests.objectives.swirling_system import model_of, seeded, swirling, with_constant

HORIZON = 4


def restored(model, batch):
    """Observations of a batch in their own units, [e, m, k + 1, o]."""
    size = model.obs_dim
    mean, std = model.input_standardizer.mean[:size], model.input_standardizer.std[:size]
    states = torch.cat([batch.start.unsqueeze(2), batch.observations], 2)
    return states * std + mean


def places(data, batch, model):
    """The row that each window begins at."""
    return torch.cdist(restored(model, batch)[:, :, 0], data.observation).argmin(-1)


def windows_of(data, rows, count=1000, horizon=HORIZON, **options):
    model = model_of(data, members=len(rows), **options)
    return model, OuterWindows(model, data, rows, horizon, count, seeded())


def test_a_window_holds_the_steps_after_its_start():
    data = swirling(episodes=3, length=9)
    model, windows = windows_of(data, torch.arange(27).expand(2, -1))
    batch = next(windows)
    rows = places(data, batch, model)
    expected = [r for r in range(27) if r % 9 <= 9 - HORIZON]
    assert sorted(rows[0].tolist()) == sorted(rows[1].tolist()) == expected
    steps = rows.unsqueeze(-1) + torch.arange(HORIZON)
    torch.testing.assert_close(restored(model, batch)[:, :, 1:], data.next_observation[steps])
    seen = model.inputs(data.observation[steps], data.action[steps])[..., 2:]
    torch.testing.assert_close(batch.actions, seen)
    targets = model.target_standardizer
    rewards = batch.rewards * targets.std[2] + targets.mean[2]
    torch.testing.assert_close(rewards, data.reward[steps])


def test_no_window_leaves_the_rows_of_its_member_or_crosses_a_gap():
    """A gap: an episode cut in two, and steps of two episodes under one number."""
    data = swirling(episodes=4, length=10)
    rows = torch.stack([torch.arange(5, 25), torch.arange(20, 40)])
    model, windows = windows_of(data, rows)
    found = places(data, next(windows), model)
    first = {5, 6, *range(10, 17), 20, 21}
    assert set(found[0].tolist()) == first
    assert set(found[1].tolist()) == {*range(20, 27), *range(30, 37)}
    joined = replace(data, episode=torch.zeros_like(data.episode))
    assert set(places(joined, next(windows_of(joined, rows)[1]), model)[0].tolist()) == first


def test_windows_of_cross_fitting_are_of_the_episodes_that_the_member_leaves_out():
    data = swirling(episodes=10, length=8)
    model = model_of(data, members=3)

    def make(rows, order):
        return OuterWindows(model, data, rows, HORIZON, 5, order)

    outer = cross_fitted(data, 3, make, folds=10, generator=seeded(1))
    for _ in range(3):
        found = places(data, next(outer.batches), model)
        for e in range(3):
            learned_on = set(data.episode[outer.inner_rows[e]].tolist())
            assert learned_on.isdisjoint(data.episode[found[e]].tolist())


def test_rewards_that_the_model_does_not_learn_or_that_never_vary_are_left_out():
    data = swirling(episodes=3, length=9)
    rows = torch.arange(27).expand(2, -1)
    assert next(windows_of(data, rows, learn_reward=False)[1]).rewards is None
    constant = replace(with_constant(data), reward=torch.ones_like(data.reward))
    with pytest.warns(UserWarning, match="constant in the training part"):
        _, windows = windows_of(constant, rows)
    assert next(windows).rewards is None


class Killed(Exception):
    pass


class KilledAt(Callback):
    """Kills a fit at an evaluation, before it is logged or saved."""

    def __init__(self, step):
        self.step = step

    def after_step(self, training):
        if training.metrics and self.step is not None and training.step >= self.step:
            raise Killed


def test_a_fit_that_learns_on_windows_is_resumed_bit_for_bit(tmp_path):
    data = swirling(episodes=12, length=15)

    def run(folder, resume, die_at=None):
        model = model_of(data, members=2, hidden=(8,)).float()
        settings = BilevelSettings(outer_every=2, outer_batch_size=16, outer_horizon=5)
        with RunFolder(tmp_path / folder, {}, resume=resume) as opened:
            objective = settings.build(model, data, data, steps=60, generator=seeded(1))
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
        return [*model.network.parameters(), objective.inner.log_weight]

    whole = run("whole", False)
    assert whole[-1].abs().max() > 0.1  # the weights moved
    with pytest.raises(Killed):
        run("killed", False, die_at=30)
    assert all(torch.equal(a, b) for a, b in zip(whole, run("killed", True), strict=True))


def test_episodes_shorter_than_the_horizon_are_refused_with_the_longest_run():
    data = swirling(episodes=4, length=6)
    rows = torch.stack([torch.arange(0, 12), torch.arange(12, 17).repeat(3)[:12]])
    windows_of(data, rows, horizon=5)
    words = "--outer-horizon 6: .* the longest has 5; choose at most 5"
    with pytest.raises(InputError, match=words):
        windows_of(data, rows, horizon=6)
