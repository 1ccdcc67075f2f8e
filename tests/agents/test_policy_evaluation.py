"""Evaluations in a process of their own say what a plain loop says."""

import os
import signal

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.actor import Actor
from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.parallel import WorkerDied, episode_seeds
from mbrl_bilevel.agents.policy_evaluation import (
    FIRST_EPISODE,
    Critics,
    PolicyEvaluation,
    play,
    played,
)
from mbrl_bilevel.envs.make import make_env
from tests.agents.small_agents import dhmbpo, mbpo, mopo, sac

ENV = "InvertedPendulum-v5"


def policy(seed):
    generator = torch.Generator().manual_seed(seed)
    return BehaviourPolicy(
        Actor(4, torch.tensor([-3.0]), torch.tensor([3.0]), 8, generator).weights(), {}
    )


def plain_returns(policy, seed, episodes):
    env, found = make_env(ENV), []
    for i in range(episodes):
        obs, _ = env.reset(seed=episode_seeds(seed, FIRST_EPISODE + i)[0])
        total, ended = 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(policy(obs[None])[0])
            total, ended = total + float(reward), terminated or truncated
        found.append(total)
    return found


def test_the_same_policy_gives_the_same_returns():
    expected = plain_returns(policy(1), seed=3, episodes=4)
    assert play(ENV, 3, 4, policy(1)) == expected == play(ENV, 3, 4, policy(1))
    assert play(ENV, 3, 2, policy(1)) == expected[:2]  # however many there are
    assert play(ENV, 4, 4, policy(1)) != expected
    assert len(set(expected)) > 1  # episodes differ


class Valued:
    """Q(s, a) = the angle of the pole plus ten times the push."""

    discount, termination_cost = 0.9, 5.0

    def values(self, obs, act):
        return obs[:, 1] + 10 * act[:, 0]


def test_critics_are_held_against_discounted_returns_of_the_same_first_actions():
    evaluation = PolicyEvaluation(ENV, seed=3, episodes=4)
    of = policy(1)
    evaluation.estimate(of, Valued())
    found = evaluation.metrics(played(ENV, 3, 4, of))
    env, q, discounted = make_env(ENV), [], []
    for i, length in enumerate(plain_returns(of, 3, 4)):
        obs, _ = env.reset(seed=episode_seeds(3, FIRST_EPISODE + i)[0])
        q.append(obs[1] + 10 * float(of(obs[None])[0, 0]))
        # 1 a step while it stands; the step in which it falls pays 0 and costs 5
        discounted.append(sum(0.9**t for t in range(int(length))) - 5 * 0.9 ** int(length))
    assert found["evaluation/q"] == pytest.approx(np.mean(q), rel=1e-5)
    assert found["evaluation/discounted_return"] == pytest.approx(np.mean(discounted))
    assert found["evaluation/return"] == pytest.approx(np.mean(plain_returns(of, 3, 4)))
    assert found["evaluation/reward_survive"] == pytest.approx(found["evaluation/return"])
    broken = Valued()
    broken.values = lambda obs, act: torch.full((4,), torch.nan)
    evaluation.estimate(of, broken)
    assert "evaluation/q" not in evaluation.metrics(played(ENV, 3, 4, of))
    evaluation.estimate(of, None)
    assert "evaluation/q" not in evaluation.metrics(played(ENV, 3, 4, of))


@pytest.mark.parametrize("make", [sac, mbpo, mopo, dhmbpo])
def test_agents_have_values_in_the_units_of_the_environment(make):
    """Those of their critics, whatever they are scaled by."""
    agent = make()
    obs, act = torch.randn(5, 2), -1 + 1.5 * torch.rand(5, 1)
    critics = agent.critics()
    assert isinstance(critics, Critics)
    found = critics.values(obs, act)
    if make is dhmbpo:
        unit = agent.updates.actor
        x = torch.cat([obs, (act - unit.action_bias) / unit.action_scale], -1)
        q = agent.updates.critics.critic(x).squeeze(-1).mean(0)
        expected = agent.updates.critics.centre + agent.updates.critics.width * q
        assert critics.discount == 0.995
    else:
        networks = agent.learner.networks
        expected = networks.value(networks.critic, obs, act).amin(0)
        assert critics.discount == 0.99
        scaled = make(reward_scale=0.5, termination_cost=3.0).critics()
        torch.testing.assert_close(scaled.values(obs, act), 2 * found)
        assert scaled.termination_cost == 3.0
    torch.testing.assert_close(found, expected.detach())


def test_evaluations_are_collected_one_by_one_with_the_step_they_began_at():
    with PolicyEvaluation(ENV, seed=3, episodes=3) as evaluation:
        assert evaluation.collect() is None
        for step, seed in ((10, 1), (20, 2)):
            evaluation.start(step, policy(seed))
            returns = plain_returns(policy(seed), seed=3, episodes=3)
            assert evaluation.collect() == (
                step,
                {
                    "evaluation/return": pytest.approx(np.mean(returns)),
                    "evaluation/return_std": pytest.approx(np.std(returns)),
                    "evaluation/reward_survive": pytest.approx(np.mean(returns)),
                },
            )
            assert evaluation.collect() is None
        assert evaluation._pool is not None
        (process,) = evaluation._pool._processes
        os.kill(process, signal.SIGKILL)
        evaluation._pool._executor_manager_thread.join(10)
        with pytest.raises(WorkerDied, match="evaluates the policy of step 30 died"):
            evaluate(evaluation, 30)


def evaluate(evaluation, step):
    """Whichever of the two finds that the process is gone."""
    evaluation.start(step, policy(1))
    evaluation.collect()
