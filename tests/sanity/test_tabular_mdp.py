"""Exact planning and tabular dynamics against slow, obvious references."""

from collections import deque

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.rewards.closed_form import one_hot_covariance, optimal_logits, scalar_rule
from mbrl_bilevel.sanity import tabular_mdp as mdp
from mbrl_bilevel.sanity.tabular_planning import (
    COUNTS,
    LEARNED,
    RULE,
    SETTINGS,
    Setting,
    exact_checks,
    gradient_checks,
    learning_checks,
    models,
    outcomes,
)
from mbrl_bilevel.sanity.tabular_population import right_precision
from mbrl_bilevel.sanity.tabular_rewards import by_rule, frequencies, log_optimum


@pytest.fixture(scope="module")
def lake() -> mdp.TabularMDP:
    return mdp.tabular_mdp(mdp.make("FrozenLake"))


def test_the_tabular_mdp_holds_the_table_of_its_environment(lake):
    table = mdp.make("FrozenLake").unwrapped.P
    torch.testing.assert_close(lake.P.sum(-1), torch.ones(16, 4, dtype=torch.float64))
    for s in range(16):
        for a in range(4):
            for after in range(16):
                assert lake.P[s, a, after].item() == pytest.approx(
                    sum(p for p, s2, _, _ in table[s][a] if s2 == after)
                )
            assert lake.R[s, a].item() == pytest.approx(sum(p * r for p, _, r, _ in table[s][a]))
    assert lake.terminal.nonzero().flatten().tolist() == [5, 7, 11, 12, 15]  # holes and the goal
    assert lake.start.tolist() == [1.0] + 15 * [0.0]


def test_optimal_returns_are_the_known_ones():
    for setting in SETTINGS:
        assert [c for c in exact_checks(setting) if not c.passed] == []


def test_the_optimal_return_of_taxi_is_that_of_its_shortest_ways():
    """Backwards breadth-first search: 20 for the last step, -1 for each before."""
    taxi = mdp.make("Taxi")
    table, of = taxi.unwrapped.P, mdp.tabular_mdp(taxi)
    before: dict[int, set[int]] = {}
    last = set()
    for s in range(500):
        for a in range(6):
            ((_, after, reward, done),) = table[s][a]
            if done:
                last.add(s)
            elif reward == -1:
                before.setdefault(after, set()).add(s)
    steps, queue = dict.fromkeys(last, 1), deque(last)
    while queue:
        after = queue.popleft()
        for s in before.get(after, ()):
            if s not in steps:
                steps[s] = steps[after] + 1
                queue.append(s)
    starts = of.start.nonzero().flatten().tolist()
    mean = sum(21 - steps[s] for s in starts) / len(starts)
    value = mdp.value_iteration(of.P, of, 1.0).amax(-1) @ of.start
    assert value.item() == pytest.approx(mean, abs=1e-9)


def test_value_iteration_of_random_models_is_policy_iteration(lake):
    generator = torch.Generator().manual_seed(0)
    P = torch.rand(3, 16, 4, 16, generator=generator, dtype=torch.float64).square()
    P = P / P.sum(-1, keepdim=True)
    found = mdp.value_iteration(P, lake, 0.9)
    for k in range(3):
        policy = torch.zeros(16, dtype=torch.int64)
        of = lake._replace(P=P[k])
        alive = (~lake.terminal).double()
        for _ in range(50):
            values = torch.stack(
                [
                    mdp.policy_value(policy, of._replace(start=start), 0.9)
                    for start in torch.eye(16, dtype=torch.float64)
                ]
            )
            Q = lake.R + 0.9 * P[k] @ (alive * values)
            policy = Q.argmax(-1)
        torch.testing.assert_close(found[k], Q, rtol=0, atol=1e-6)


def test_the_value_of_a_policy_is_the_mean_return_of_playing_it(lake):
    """4,000 real episodes; 4 standard errors."""
    policy = mdp.value_iteration(lake.P, lake, 0.99).argmax(-1)
    env, returns = mdp.make("FrozenLake").unwrapped, []
    state, _ = env.reset(seed=0)
    discount = 1.0
    while len(returns) < 4_000:
        state, reward, done, _, _ = env.step(int(policy[state]))
        if done:
            returns.append(discount * float(reward))
            (state, _), discount = env.reset(), 1.0
        else:
            discount *= 0.99
    played = torch.tensor(returns, dtype=torch.float64)
    error = played.std().item() / len(played) ** 0.5
    exact = mdp.policy_value(policy, lake, 0.99).item()
    assert abs(played.mean().item() - exact) < 4 * error


def test_value_iteration_says_when_it_does_not_settle(lake):
    with pytest.raises(InputError, match="3 updates"):
        mdp.value_iteration(lake.P, lake, 0.99, most=3)
    with pytest.raises(InputError, match="'NoSuchLake'"):
        mdp.make("NoSuchLake")


def test_transitions_are_real_counted_right_and_the_same_for_the_same_seed(lake):
    env = mdp.make("FrozenLake")
    a, b, c = (mdp.collect(env, 300, seed) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    found = mdp.counts(torch.stack([a, c]), lake.P)
    for k, seen in enumerate((a, c)):
        slow = torch.zeros_like(lake.P)
        for s, action, after in seen.tolist():
            slow[s, action, after] += 1
        torch.testing.assert_close(found[k], slow)
    assert (found[:, lake.P == 0] == 0).all()
    # an episode goes on from where it is, or starts anew from state 0 after its end
    followed = a[1:, 0] == a[:-1, 2]
    assert (followed | ((a[1:, 0] == 0) & lake.terminal[a[:-1, 2]])).float().mean() > 0.98


def test_the_true_model_has_no_gap_and_no_error_and_a_wrong_one_has(lake):
    wrong = lake.P.roll(1, 1)  # the effects of the actions swapped
    gap = mdp.value_gap(torch.stack([lake.P, wrong]), lake, 0.99)
    assert gap[0] == 0
    assert gap[1] > 0.1
    visits = torch.ones(16, 4, dtype=torch.float64)
    nll, variation = mdp.error(lake.P, lake, visits)
    assert variation == 0
    torch.testing.assert_close(nll, -torch.special.xlogy(lake.P, lake.P).sum(-1).mean())
    assert mdp.error(wrong, lake, visits)[0] == torch.inf


def test_frequencies_and_optima_are_those_of_theory_t7():
    seen = torch.tensor([[6.0, 3.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    q = frequencies(seen)
    torch.testing.assert_close(q[0], torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64))
    torch.testing.assert_close(q[1], torch.full((3,), 1 / 3, dtype=torch.float64))
    prior, scale = torch.tensor([0.5, 2.0]).double(), torch.tensor([0.7, 1.4]).double()
    found = log_optimum(prior, scale, seen)
    for row in range(2):
        U = scale[row] * right_precision((seen[row] + prior[row]) / (seen[row] + prior[row]).sum())
        expected = optimal_logits(U, q[row], 1.0).log_softmax(-1)
        torch.testing.assert_close(found[row], expected)
    torch.testing.assert_close(found[1], q[1].log())  # nothing seen: uniform under any reward


def test_the_rule_is_that_of_the_one_hot_covariance():
    seen = torch.randint(0, 5, (3, 2, 3), generator=torch.Generator().manual_seed(0)).double()
    after = torch.arange(3).repeat_interleave(seen.sum((0, 1)).long())
    U = scalar_rule(one_hot_covariance(after, 3).double(), 1.0)
    expected = optimal_logits(U, frequencies(seen), 1.0).softmax(-1)
    torch.testing.assert_close(by_rule(seen), expected, rtol=1e-5, atol=1e-7)


def test_the_policy_gradient_ends_at_the_closed_form():
    assert all(c.passed for c in gradient_checks(1))


def test_learned_dynamics_are_probabilities_near_the_frequencies(lake):
    env = mdp.make("FrozenLake")
    found = models(torch.stack([mdp.collect(env, 4_000, s) for s in range(2)]), lake)
    for P in found.values():
        torch.testing.assert_close(P.sum(-1), torch.ones(2, 16, 4, dtype=torch.float64))
    visits = torch.ones(2, 16, 4, dtype=torch.float64)
    visits[:, lake.terminal] = 0  # no transition starts there
    far = {name: mdp.error(P, lake, visits)[1].amax().item() for name, P in found.items()}
    assert far[COUNTS] < 0.15
    assert far[LEARNED] < 0.15 < far[RULE]


def test_the_value_gap_falls_with_real_data_on_the_lake():
    small = Setting("FrozenLake", (1_000, 20_000), 5, 0.99, 14 / 17)
    found = outcomes(small, seed=0)
    assert [c for c in learning_checks(small, found) if not c.passed] == []
    upside_down = dict(zip(found, reversed(list(found.values())), strict=True))
    changes = [c for c in learning_checks(small, upside_down) if "change" in c.name]
    assert not any(c.passed for c in changes)
