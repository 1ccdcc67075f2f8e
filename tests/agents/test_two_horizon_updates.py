"""Policy gradients through a model: against finite differences, slow loops and themselves."""

import copy
import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.agents.model_return import model_return
from mbrl_bilevel.agents.setting_groups import TwoHorizonSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.agents.two_horizon_updates import TwoHorizonUpdates
from tests.agents.linear_gaussian import expected_step, linear_model, quadratic, task
from tests.agents.test_model_return import slow_return

SPACES = Spaces(Box(-np.inf, np.inf, (2,)), Box(np.array([-1.0]), np.array([0.5]), dtype=float))
SMALL = {"policy_hidden": 8, "policy_batch_size": 16, "horizon": 3, "detached_horizon": 4}
LIMIT = 0.8


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def far(next_obs):
    return next_obs[..., 0].abs() > LIMIT


def updates(seed=0, *, model=None, its_task=None, critic_dropout=0.0, **settings):
    """In float64, with targets that differ from the critics, and states to start from."""
    chosen = TwoHorizonSettings(**{**SMALL, **settings}, critic_dropout=critic_dropout)
    found = TwoHorizonUpdates(
        chosen, model or linear_model(std=0.1), its_task or task(), SPACES, seeded(seed)
    )
    for module in (found.actor, found.critics, found.standardizer):
        module.double()
    found.log_temperature.data = found.log_temperature.data.double()
    found.states = found.states.double()
    found.standardizer.mean.copy_(torch.tensor([0.3, -0.2]))
    found.standardizer.std.copy_(torch.tensor([0.5, 2.0]))
    with torch.no_grad():
        for parameter in [*found.critics.critic.parameters(), *found.critics.target.parameters()]:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=seeded(8)))
        for layer in found.actor.network.linear_layers():
            layer.bias.normal_(generator=seeded(9))
    found.critics.low.fill_(-20.0)
    found.critics.high.fill_(5.0)
    return found


def starts(count, seed=4):
    """Within the limit."""
    return 0.3 * torch.randn(count, 2, generator=seeded(seed)).double().clamp(-2.5, 2.5)


def fill(found, count=64):
    """Puts states into the buffer, without a detached rollout."""
    found.states[:count] = starts(count)
    found.stored = count
    found.updates = 1  # the next detached rollout comes later
    return found


def without_steps(found):
    """Gradients are left where they can be read."""
    for optimizer in found.optimizers().values():
        optimizer.step = lambda: None
    return found


def replayed(found, seed=5):
    found.generator.manual_seed(seed)
    return found


def objective(found, seed=5):
    """The mean of R, with the mean of the critics at the end."""
    rollout = replayed(found, seed).differentiated_rollout()
    q = found.critics.value(rollout.last)
    gains = model_return(rollout, q, found.alpha, found.settings.discount, first_entropy=True)
    return gains.mean()


@pytest.mark.parametrize("learn_reward", [False, True])
def test_the_gradient_is_that_of_finite_differences(learn_reward):
    """Through dynamics, noise, reward, density and the last value, for the same random numbers.

    Central differences of step 1e-5 in float64 along ten random directions of the parameters: an
    error of about 1e-10 of the third derivative, and rounding of 1e-11.
    """
    model = linear_model(std=0.1, learn_reward=learn_reward)
    found = fill(updates(model=model, its_task=task(None) if learn_reward else None))
    parameters = list(found.actor.parameters())
    gradient = torch.autograd.grad(objective(found), parameters)
    for seed in range(10):
        g = seeded(seed)
        direction = [torch.randn(p.shape, generator=g).double() for p in parameters]
        slope = sum((a * b).sum() for a, b in zip(gradient, direction, strict=True)).item()
        sides = []
        with torch.no_grad():
            for sign in (1, -2):
                for p, d in zip(parameters, direction, strict=True):
                    p.add_(sign * 1e-5 * d)
                sides.append(objective(found).item())
            for p, d in zip(parameters, direction, strict=True):
                p.add_(1e-5 * d)
        assert slope == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6, abs=1e-8)
        assert abs(slope) > 1e-3


def test_with_terminations_the_gradient_is_that_of_the_steps_before_them():
    """Which rows end is held still: no gradient of the task's decision."""
    found = fill(updates(its_task=task(terminated=far), horizon=5))
    parameters = list(found.actor.parameters())
    gradient = torch.autograd.grad(objective(found), parameters)
    alive = replayed(found).differentiated_rollout().alive
    assert 0.1 < alive[-1].mean() < 0.9
    never_ends = fill(updates(horizon=5))
    never_ends.actor.load_state_dict(found.actor.state_dict())
    rollout = replayed(never_ends).differentiated_rollout()._replace(alive=alive)
    q = never_ends.critics.value(rollout.last)
    gains = model_return(rollout, q, found.alpha, 0.995, first_entropy=True)
    expected = torch.autograd.grad(gains.mean(), list(never_ends.actor.parameters()))
    for ours, theirs in zip(gradient, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_actor_goes_up_that_gradient_in_units_of_the_width():
    found = without_steps(fill(updates()))
    parameters = list(found.actor.parameters())
    expected = torch.autograd.grad(objective(found), parameters)
    replayed(found).update(starts)
    for p, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(p.grad, -gradient / 12.5)
    norm = math.sqrt(sum((g / 12.5).square().sum().item() for g in expected))
    assert found.sums.take()["policy/gradient_norm"] == pytest.approx(norm)


def test_critics_learn_targets_of_a_slow_loop(monkeypatch):
    found = fill(updates(its_task=task(terminated=far), horizon=5))
    seen = {}

    def spy(name, whose):
        original = getattr(whose, name)

        def noted(*arguments, **how):
            seen[name] = (arguments, original(*arguments, **how))
            return seen[name][1]

        monkeypatch.setattr(whose, name, noted)

    spy("differentiated_rollout", found)
    spy("target_value", found.critics)
    spy("loss", found.critics)
    alpha = found.alpha.item()
    found.update(starts, critics_only=True)
    rollout, (x, y) = seen["differentiated_rollout"][1], seen["loss"][0]
    (last,), value = seen["target_value"]
    assert torch.equal(last, rollout.last)
    assert torch.equal(x, rollout.first)
    assert 0.1 < rollout.alive[-1].mean() < 0.9
    expected = slow_return(rollout, value, alpha, 0.995, first_entropy=False)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)


def test_a_rollout_is_the_policys_in_the_model():
    """Without noise of the model: states follow from states and actions, inputs are what
    critics read, rewards are the task's, and a row stays dead."""
    found = fill(updates(model=linear_model(members=1), its_task=task(terminated=far)))
    rollout = replayed(found).differentiated_rollout()
    obs = found.standardizer.restore(rollout.first[:, :2])
    assert all((obs[:, None] - found.states[:64]).abs().sum(-1).min(1).values < 1e-12)
    torch.testing.assert_close(rollout.first[:, 2:], rollout.actions[0])
    alive = torch.ones(16, dtype=torch.bool)
    for t, unit in enumerate(rollout.actions):
        assert torch.equal(rollout.alive[t] > 0, alive)
        act = -0.25 + 0.75 * unit  # the box from -1 to 0.5
        after = expected_step(None, 0, obs, act)
        reward = quadratic(obs, act, after)
        torch.testing.assert_close(rollout.rewards[t][alive], reward[alive])
        alive = alive & (after[:, 0].abs() <= LIMIT)
        obs = after
    assert torch.equal(rollout.alive[-1] > 0, alive)
    s = found.standardizer.standardize(obs)
    torch.testing.assert_close(rollout.last[alive, :2], s[alive])


def root(obs, act, next_obs):
    """NaN, with gradients of NaN, for states in which episodes have ended."""
    return (LIMIT - obs[..., 0].abs()).sqrt() + act[..., 0]


def test_what_stands_behind_a_termination_spoils_no_gradient():
    found = fill(updates(its_task=task(root, far), horizon=5))
    before = [p.detach().clone() for p in found.actor.parameters()]
    found.update(starts)
    metrics = found.sums.take()
    assert 0.1 < metrics["policy/alive_differentiated"] < 0.9
    assert metrics["policy/skipped_steps"] == 0
    assert all(math.isfinite(v) for v in metrics.values())
    assert not any(map(torch.equal, before, found.actor.parameters()))


def nowhere_finite(obs, act, next_obs):
    return torch.full_like(obs[..., 0], torch.nan) * act[..., 0]


def test_an_update_that_is_not_finite_is_left_out_and_counted():
    found = fill(updates(its_task=task(nowhere_finite)))
    before = {k: v.clone() for k, v in found.state().items() if "adam" not in k}
    found.update(starts)
    assert found.sums.take()["policy/skipped_steps"] == 1.0
    after = found.state()
    for name, value in before.items():
        if name.startswith(("actor", "critics/critic")):
            assert torch.equal(after[name], value), name
    found.task = task()
    found.update(starts)
    assert found.sums.take()["policy/skipped_steps"] == 0.0


def test_gradients_by_step_are_norms_of_single_rollouts_gradients():
    found = without_steps(fill(updates()))
    rollout = replayed(found).differentiated_rollout()
    q = found.critics.value(rollout.last)
    gains = model_return(rollout, q, found.alpha, 0.995, first_entropy=True)
    gradients = torch.autograd.grad(gains.sum() / 12.5, rollout.actions)
    replayed(found).update(starts)
    metrics = found.sums.take()
    for t, gradient in enumerate(gradients):
        expected = gradient.abs().sum(-1).mean().item()  # actions of one dimension
        assert metrics[f"policy/action_gradient_{t}"] == pytest.approx(expected)


def test_the_buffer_holds_every_state_that_has_not_terminated(monkeypatch):
    found = updates(model=linear_model(members=1), its_task=task(terminated=far))
    obs, alive, expected, steps = starts(16), torch.ones(16, dtype=torch.bool), [], []
    step = found._step

    def spy(at, unit):
        steps.append((at, step(at, unit)))
        return steps[-1][1]

    monkeypatch.setattr(found, "_step", spy)
    found.detached_rollout(obs)
    assert len(steps) == 4
    for at, after in steps:
        torch.testing.assert_close(at[alive], obs[alive])
        expected.append(obs[alive])
        obs = after.observation
        alive = alive & (obs[:, 0].abs() <= LIMIT)
    assert 0 < alive.sum() < 16
    expected = torch.cat(expected)
    assert found.stored == found.place == len(expected)
    assert torch.equal(found.states[: found.stored], expected)
    assert (expected[:, 0].abs() <= LIMIT).all()
    assert not found.states.requires_grad


def test_bounds_come_from_living_steps_alone(monkeypatch):
    found = updates(its_task=task(lambda o, a, n: torch.where(far(o), -1e6, 1.0), far))
    seen = []
    monkeypatch.setattr(
        found.critics, "move_bounds", lambda soft, gamma: seen.append((soft, gamma))
    )
    found.detached_rollout(starts(64))
    ((soft, gamma),) = seen
    assert gamma == 0.995
    assert len(soft) == found.stored < 4 * 64
    assert soft.min() > -1e3
    assert soft.std() > 0  # the entropy's part: rewards are all 1


def test_a_full_buffer_forgets_the_oldest():
    found = updates(detached_rounds=2)
    for seed in range(3):
        found.detached_rollout(starts(16, seed))
    assert found.stored == len(found.states) == 2 * 4 * 16
    kept = [bool((found.states == starts(16, seed)[0]).all(-1).any()) for seed in range(3)]
    assert kept == [False, True, True]


def test_detached_rollouts_come_every_few_updates():
    found, asked = updates(detached_every=3), []

    def noted(count):
        asked.append((found.updates, count))
        return starts(count)

    for _ in range(7):
        found.update(noted)
    assert asked == [(0, 16), (3, 16), (6, 16)]


def test_critics_alone_leave_the_policy_as_it_is():
    found = updates()
    before = copy.deepcopy(found.actor.state_dict()), found.log_temperature.item()
    critics = copy.deepcopy(found.critics.critic.state_dict())
    found.update(starts, critics_only=True)
    assert all(torch.equal(v, found.actor.state_dict()[k]) for k, v in before[0].items())
    assert found.log_temperature.item() == before[1]
    assert not any(torch.equal(v, found.critics.critic.state_dict()[k]) for k, v in critics.items())


@pytest.mark.parametrize("target_entropy", [-20.0, 20.0])
def test_the_temperature_rises_where_entropy_is_wanted(target_entropy):
    found = fill(updates(target_entropy=target_entropy))
    before = found.log_temperature.item()
    found.update(starts)
    change = found.log_temperature.item() - before
    assert change == pytest.approx(math.copysign(3e-4, target_entropy), rel=1e-3)  # Adam's first
    assert updates().target_entropy == -1.0  # per action, unless it is named


def test_a_restart_takes_the_models_elites_and_forgets_its_states():
    model = linear_model(std=0.1)
    found = updates(model=model)
    found.update(starts)
    model.elites = torch.tensor([2, 0])
    with torch.no_grad():
        model.network.network.linear_layers()[-1].weight.mul_(2.0)
    old = found.network(torch.ones(1, 3).double()).mean
    assert found.network.members == 3
    found.restart()
    new = model.network(torch.ones(1, 3).double()).mean[[2, 0]]
    assert torch.equal(found.network(torch.ones(1, 3).double()).mean, new)
    assert not torch.equal(old[[2, 0]], new)
    assert (found.stored, found.place, found.updates) == (0, 0, 0)
    assert not found.actor_optimizer.state
    assert not found.critic_optimizer.state
    assert found.temperature_optimizer.state  # it learns on
    assert all(p.requires_grad for p in model.network.parameters())
    assert not any(p.requires_grad for p in found.network.parameters())


def test_a_lower_rate_outlives_a_restart():
    found = updates()
    found.scale_learning_rate(0.1)
    found.restart()
    rates = [o.param_groups[0]["lr"] for o in found.optimizers().values()]
    assert rates == pytest.approx(3 * [3e-5])


def test_its_state_continues_bit_for_bit():
    """After a restart, a lower rate and a partly filled buffer; dropout included."""
    model = linear_model(std=0.1)
    first, second = (updates(seed, model=model, critic_dropout=0.1) for seed in (0, 3))
    first.update(starts)
    first.restart()
    first.scale_learning_rate(0.5)
    for _ in range(3):
        first.update(starts)
    state = {k: v.clone() for k, v in first.state().items()}
    second.load_state(state)
    second.generator.set_state(first.generator.get_state())
    for _ in range(25):  # over the next detached rollout
        first.update(starts)
        second.update(starts)
    ours, theirs = first.state(), second.state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    assert not torch.equal(ours["log_temperature"], state["log_temperature"])
    assert first.sums.take() == second.sums.take()
