"""Reacher's and Pusher's rewards and names against the simulator."""

import numpy as np
import pytest
import torch

from mbrl_bilevel.envs.tasks import get_task
from tests.envs.real_rollouts import random_rollout, simulator


@pytest.mark.parametrize("env_id", ["Reacher-v5", "Pusher-v5"])
def test_the_reward_is_exact(env_id: str) -> None:
    real, reward = random_rollout(env_id), get_task(env_id).reward
    assert reward is not None
    found = reward(real.obs, real.act, real.next_obs)
    # The environment squares actions in float32.
    torch.testing.assert_close(found, real.reward, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize(
    ("env_id", "joints"),
    [
        ("Reacher-v5", {"joint0": "arm1", "joint1": "arm2"}),
        (
            "Pusher-v5",
            {
                f"r_{name}_joint": name
                for name in (
                    *("shoulder_pan", "shoulder_lift", "upper_arm_roll", "elbow_flex"),
                    *("forearm_roll", "wrist_flex", "wrist_roll"),
                )
            },
        ),
    ],
)
def test_names_stand_where_the_simulator_puts_the_joints(
    env_id: str, joints: dict[str, str]
) -> None:
    env = simulator(env_id)
    names = get_task(env_id).observation_names
    still = env._get_obs()
    for joint, name in joints.items():
        position, speed = env.data.joint(joint).qpos, env.data.joint(joint).qvel
        for state, expected in (
            (position, {f"cos_{name}", f"sin_{name}", f"{name}_angle"}),
            (speed, {f"vel_{name}"}),
        ):
            before = state.copy()
            state += 0.01
            moved = {names[i] for i in np.flatnonzero(env._get_obs() != still)}
            state[:] = before
            assert moved == expected & set(names)


def test_positions_of_the_pusher_are_named_after_the_bodies() -> None:
    env = simulator("Pusher-v5")
    obs, names = env._get_obs(), get_task("Pusher-v5").observation_names
    for body, thing in (("tips_arm", "fingertip"), ("object", "object"), ("goal", "goal")):
        found = [obs[names.index(f"{thing}_{axis}")] for axis in "xyz"]
        np.testing.assert_array_equal(found, env.data.body(body).xpos)


def test_the_target_of_the_reacher_is_where_the_names_say() -> None:
    env = simulator("Reacher-v5")
    obs, names = env._get_obs(), get_task("Reacher-v5").observation_names
    gap = env.data.body("fingertip").xpos - env.data.body("target").xpos
    for k, axis in enumerate("xy"):
        assert obs[names.index(f"target_{axis}")] == env.data.body("target").xpos[k]
        assert obs[names.index(f"distance_{axis}")] == gap[k]
