"""Data sets that do not say, or not all, of the environment that they were collected in."""

import warnings

import gymnasium
import minari
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RescaleAction
from minari.data_collector import EpisodeBuffer

from mbrl_bilevel.envs.learned_single_env import learned_env
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.main import run
from tests.situations.test_environment_of_data import MOPO, SMALL, command, here, trained

assert here  # the fixture of every test of this file
pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered")
TRAIN = f"train-model --dataset my/run-v0 --out run {SMALL}"
ACT = "eval-agent --model run --episodes 1 --max-steps 3 --horizon 2 --samples 4 --elites 2"
ACT += " --terminal-value none"


def record(env: gymnasium.Env, named: gymnasium.Env | None = None, episodes: int = 20) -> None:
    """A data set my/run-v0 of random actions that says it was collected in `named`."""
    env.action_space.seed(0)
    buffers = []
    for i in range(episodes):
        observations, actions, rewards, ends = [env.reset(seed=i)[0]], [], [], []
        for _ in range(20):
            actions.append(env.action_space.sample())
            observation, reward, terminated, _, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
            ends.append(terminated)
            if terminated:
                break
        last = np.arange(len(ends)) == len(ends) - 1
        buffers.append(
            EpisodeBuffer(
                observations=np.array(observations),
                actions=np.array(actions),
                rewards=np.array(rewards),
                terminations=np.array(ends),
                truncations=last & ~np.array(ends),
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            "my/run-v0",
            buffers,
            env=named,
            observation_space=env.observation_space,
            action_space=env.action_space,
        )


@pytest.mark.situation("refused")
def test_actions_recorded_on_another_scale_are_not_acted_out(capsys) -> None:
    """The action 1 of such data is the environment's 3, which nothing on record tells."""
    plain = gymnasium.make("InvertedPendulum-v5")
    record(RescaleAction(gymnasium.make("InvertedPendulum-v5"), -1.0, 1.0), named=plain)
    boxes = "the box [-1, 1], those of InvertedPendulum-v5 lie in [-3, 3]"
    assert boxes in command(f"{MOPO} --out other", capsys, 2)
    command(TRAIN, capsys)
    capsys.readouterr()
    assert run(ACT.split()) == 2
    assert boxes in capsys.readouterr().err
    with pytest.raises(InputError, match="recorded in the box"):
        learned_env("run", torch.zeros(1, 4), num_envs=1)
    command(f"{ACT} --env InvertedPendulum-v5 --other-env", capsys)


@pytest.mark.situation("right")
def test_a_named_environment_stands_in_for_one_that_the_data_do_not_name(capsys) -> None:
    record(gymnasium.make("InvertedPendulum-v5"))
    command(f"{TRAIN} --env InvertedPendulum-v5", capsys)
    assert trained().env_id == "InvertedPendulum-v5"
    assert not trained().learn_reward
    command(ACT, capsys)


@pytest.mark.situation("refused")
def test_a_named_environment_must_agree_with_data_that_name_none(capsys) -> None:
    record(RescaleAction(gymnasium.make("Pendulum-v1"), -1.0, 1.0))
    assert "not those of the task Pendulum-v1" in command(f"{TRAIN} --env Pendulum-v1", capsys, 2)
    assert "unknown environment 'Pendulun-v1'" in command(f"{TRAIN} --env Pendulun-v1", capsys, 2)
