"""Evaluations in a process of their own say what a plain loop says."""

import os
import signal

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.actor import Actor
from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.parallel import WorkerDied, episode_seeds
from mbrl_bilevel.agents.policy_evaluation import FIRST_EPISODE, PolicyEvaluation, play
from mbrl_bilevel.envs.make import make_env

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
