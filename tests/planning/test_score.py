import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.score import Scoring
from mbrl_bilevel.protocols import Trajectories
from tests.planning.toy_problems import ClosedTask, LinearModel, Recorded

P, B, N, T, OBS, ACT = 3, 2, 5, 7, 4, 2


def sum_reward(obs: Tensor, act: Tensor, next_obs: Tensor) -> Tensor:
    return obs.sum(-1) + 2 * act.sum(-1) - 3 * next_obs[..., 0]


def leaves(next_obs: Tensor) -> Tensor:
    return next_obs[..., 1] > 0.8


def futures(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(P, B, N, T + 1, OBS, generator=generator, dtype=torch.float64)
    actions = torch.randn(B, N, T, ACT, generator=generator, dtype=torch.float64)
    return observations, actions


def slow_return(
    observations: Tensor, actions: Tensor, rewards: Tensor | None, ends: bool, discount: float
) -> tuple[list[list[float]], int]:
    """One loop per axis, one step at a time, as an environment would pay."""
    table, broken_sequences = [], 0
    for b in range(B):
        row = []
        for n in range(N):
            returns, broken = [], False
            for p in range(P):
                total = 0.0
                for t in range(T):
                    now, after = observations[p, b, n, t], observations[p, b, n, t + 1]
                    if rewards is None:
                        reward = float(sum_reward(now, actions[b, n, t], after))
                    else:
                        reward = float(rewards[p, b, n, t])
                    if not (math.isfinite(reward) and all(math.isfinite(v) for v in after)):
                        total, broken = -math.inf, True
                        break
                    total += discount**t * reward
                    if ends and float(after[1]) > 0.8:
                        break
                returns.append(total)
            row.append(sum(returns) / P)
            broken_sequences += broken
        table.append(row)
    return table, broken_sequences


def run(
    observations: Tensor,
    actions: Tensor,
    rewards: Tensor | None = None,
    *,
    ends: bool = True,
    discount: float = 1.0,
    alive_bonus: float = 0.0,
) -> tuple[Tensor, int]:
    task = ClosedTask(sum_reward if rewards is None else None, leaves if ends else None)
    scored = Scoring(discount=discount, alive_bonus=alive_bonus)(
        Recorded(observations, rewards),
        task,
        observations[0, :, 0, 0],
        actions,
        torch.Generator(),
    )
    return scored.returns, int(scored.non_finite)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("head", [False, True])
def test_returns_match_the_slow_loop(ends: bool, discount: float, head: bool) -> None:
    observations, actions = futures()
    rewards = observations[..., 1:, 2] ** 3 if head else None
    returns, non_finite = run(observations, actions, rewards, ends=ends, discount=discount)
    expected, _ = slow_return(observations, actions, rewards, ends, discount)
    torch.testing.assert_close(returns, torch.tensor(expected, dtype=torch.float64))
    assert non_finite == 0
    if ends:
        assert int(leaves(observations[..., 1:-1, :]).any(-1).sum()) > 5  # the mask had work to do


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("ends", [False, True])
def test_non_finite_futures_count_as_the_slow_loop_says(value: float, ends: bool) -> None:
    for seed in range(5):
        observations, actions = futures(seed)
        generator = torch.Generator().manual_seed(seed)
        hit = torch.rand(P, B, N, T, generator=generator) < 0.03
        observations[..., 1:, 0] = observations[..., 1:, 0].masked_fill(hit, value)
        returns, non_finite = run(observations, actions, ends=ends)
        expected, broken = slow_return(observations, actions, None, ends, 1.0)
        torch.testing.assert_close(returns, torch.tensor(expected, dtype=torch.float64))
        assert non_finite == broken
        assert 0 < broken < B * N


def test_the_alive_bonus_counts_the_steps_lived_through_undiscounted() -> None:
    observations, actions = futures()
    plain, _ = run(observations, actions, discount=0.9)
    surviving, _ = run(observations, actions, discount=0.9, alive_bonus=2.5)
    lived = torch.zeros(B, N, dtype=torch.float64)
    for b, n, p in itertools.product(range(B), range(N), range(P)):
        for state in observations[p, b, n, 1:]:
            if state[1] > 0.8:
                break
            lived[b, n] += 1 / P
    assert 0 < lived.min() < lived.max() < T
    torch.testing.assert_close(surviving - plain, 2.5 * lived)


def test_nothing_after_a_termination_leaks() -> None:
    observations, actions = futures()
    observations[..., 3, 1] = 1.0
    clean, _ = run(observations, actions)
    observations[..., 4:, :] = math.nan
    torch.testing.assert_close(run(observations, actions)[0], clean)
    assert run(observations, actions)[1] == 0


def test_a_reward_that_is_not_finite_is_the_worst() -> None:
    observations, actions = futures()
    rewards = torch.zeros(P, B, N, T, dtype=torch.float64)
    rewards[1, 0, 2, 3] = math.inf
    returns, non_finite = run(observations, actions, rewards, ends=False)
    assert returns[0, 2] == -math.inf
    assert non_finite == 1
    assert int(returns.isfinite().sum()) == B * N - 1


def test_the_tasks_reward_goes_before_the_models_head() -> None:
    observations, actions = futures()
    model = Recorded(observations, torch.full((P, B, N, T), 1e6, dtype=torch.float64))
    scored = Scoring()(
        model, ClosedTask(sum_reward), observations[0, :, 0, 0], actions, torch.Generator()
    )
    expected, _ = slow_return(observations, actions, None, False, 1.0)
    torch.testing.assert_close(scored.returns, torch.tensor(expected, dtype=torch.float64))


def test_one_of_everything() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    returns, non_finite = Scoring()(
        LinearModel(one, one),
        ClosedTask(sum_reward),
        one,
        one.expand(1, 1, 1, 1),
        torch.Generator(),
    )
    assert returns.tolist() == [[1 + 2 - 3 * 2]]
    assert int(non_finite) == 0


def test_no_reward_anywhere_is_bad_input() -> None:
    observations, actions = futures()

    class Blind:
        def trajectories(self, *_: object) -> Trajectories:
            return Trajectories(observations, None)

    with pytest.raises(InputError, match="no reward head"):
        Scoring()(Blind(), ClosedTask(), observations[0, :, 0, 0], actions, torch.Generator())


@pytest.mark.parametrize("ends", [False, True])
def test_disagreement_costs_its_weight_at_every_step_that_counts(ends: bool) -> None:
    """The same as a reward that is smaller by weight times disagreement, in the slow loop."""
    observations, actions = futures()
    generator = torch.Generator().manual_seed(1)
    spread = torch.rand(B, N, T, generator=generator, dtype=torch.float64)
    rewards = observations[..., 1:, 2] ** 3
    model = Recorded(observations, rewards, spread)
    task = ClosedTask(None, leaves if ends else None)
    scored = Scoring(discount=0.9, disagreement=0.7)(
        model, task, observations[0, :, 0, 0], actions, torch.Generator()
    )
    expected, _ = slow_return(observations, actions, rewards - 0.7 * spread, ends, 0.9)
    torch.testing.assert_close(scored.returns, torch.tensor(expected, dtype=torch.float64))


def test_disagreement_of_a_model_that_tells_none_is_bad_input() -> None:
    observations, actions = futures()
    with pytest.raises(InputError, match="simulator has no members"):
        Scoring(disagreement=0.1)(
            Recorded(observations, observations[..., 1:, 0]),
            ClosedTask(),
            observations[0, :, 0, 0],
            actions,
            torch.Generator(),
        )


def two_futures() -> tuple[Tensor, Tensor]:
    """One sequence of two steps, two particles; the second ends at its first step."""
    observations = torch.tensor([[[0.0, 1.0, 2.0]], [[0.0, 5.0, 7.0]]])[:, None, :, :, None]
    return observations, torch.ones(2, 1, 1, 2)


@pytest.mark.parametrize("pessimism", [0.0, 0.5])
def test_the_terminal_value_is_that_of_futures_that_go_on(pessimism: float) -> None:
    observations, rewards = two_futures()
    scored = Scoring(
        discount=0.5, pessimism=pessimism, terminal_value=lambda obs: 10 * obs[..., 0]
    )(
        Recorded(observations, rewards),
        ClosedTask(None, lambda obs: obs[..., 0] == 5),
        torch.zeros(1, 1),
        torch.zeros(1, 1, 2, 1),
        torch.Generator(),
    )
    lasting, ended = 1 + 0.5 * 1 + 0.5**2 * 10 * 2, 1.0
    mean, deviation = (lasting + ended) / 2, (lasting - ended) / 2
    assert scored.returns.item() == pytest.approx(mean - pessimism * deviation)


def test_a_future_that_ends_at_the_last_step_has_no_terminal_value() -> None:
    observations, rewards = two_futures()
    scored = Scoring(terminal_value=lambda obs: obs[..., 0])(
        Recorded(observations[:1], rewards[:1]),
        ClosedTask(None, lambda obs: obs[..., 0] == 2),
        torch.zeros(1, 1),
        torch.zeros(1, 1, 2, 1),
        torch.Generator(),
    )
    assert scored.returns.item() == 2


@pytest.mark.parametrize("ended", [False, True])
def test_a_terminal_value_that_is_not_finite_counts_only_while_alive(ended: bool) -> None:
    observations, rewards = two_futures()
    scored = Scoring(terminal_value=lambda obs: math.nan * obs[..., 0])(
        Recorded(observations[1:], rewards[1:]),
        ClosedTask(None, (lambda obs: obs[..., 0] == 5) if ended else None),
        torch.zeros(1, 1),
        torch.zeros(1, 1, 2, 1),
        torch.Generator(),
    )
    assert scored.returns.item() == (1 if ended else -math.inf)
    assert int(scored.non_finite) == (not ended)


@pytest.mark.parametrize(
    "settings", [{"discount": 1.5}, {"pessimism": -1.0}, {"disagreement": math.nan}]
)
def test_bad_weights(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(settings))}"):
        Scoring(**settings)


class Disagreeing:
    """Two particles whose rewards are given, [p b n t]."""

    def __init__(self, rewards):
        self.rewards = torch.tensor(rewards)

    def trajectories(self, obs, actions, generator):
        shape = (*self.rewards.shape[:-1], self.rewards.shape[-1] + 1, 1)
        return Trajectories(torch.zeros(shape), self.rewards)


class NoTask:
    env_id, reward, observation_names = "None-v0", None, ("x",)

    def terminated(self, next_obs):
        return torch.zeros(next_obs.shape[:-1], dtype=torch.bool)


@pytest.mark.parametrize("pessimism", [0.0, 0.5, 2.0])
def test_the_return_is_the_mean_less_the_deviations(pessimism):
    model = Disagreeing([[[[1.0, 2.0], [3.0, 3.0]]], [[[2.0, 5.0], [3.0, 3.0]]]])
    found = Scoring(pessimism=pessimism)(
        model, NoTask(), torch.zeros(1, 1), torch.zeros(1, 2, 2, 1), torch.Generator()
    )
    assert found.returns.tolist() == [[5.0 - 2.0 * pessimism, 6.0]]


def test_a_sequence_that_is_not_finite_stays_the_worst():
    model = Disagreeing([[[[torch.nan, 2.0], [3.0, 3.0]]], [[[2.0, 5.0], [1.0, 1.0]]]])
    found = Scoring(pessimism=1.0)(
        model, NoTask(), torch.zeros(1, 1), torch.zeros(1, 2, 2, 1), torch.Generator()
    )
    assert found.returns.tolist() == [[-torch.inf, 2.0]]
    assert found.non_finite == 1


def test_rewards_are_of_the_actions_that_each_particle_took():
    """Under a prior the given sequences are deviations, not actions."""
    taken = torch.tensor([[[[[1.0], [2.0]]]], [[[[10.0], [20.0]]]]])

    class Following:
        def trajectories(self, obs, actions, generator):
            return Trajectories(torch.zeros(2, 1, 1, 3, 1), None, actions=taken)

    task = ClosedTask(lambda obs, act, next_obs: act.sum(-1))
    found = Scoring()(
        Following(), task, torch.zeros(1, 1), torch.full((1, 1, 2, 1), 99.0), torch.Generator()
    )
    assert found.returns.tolist() == [[(3.0 + 30.0) / 2]]
