"""The pendulums' rewards and positions against the simulator."""

import mujoco
import numpy as np
import torch

from mbrl_bilevel.envs.pendulum import tip
from mbrl_bilevel.envs.tasks import get_task
from tests.envs.real_rollouts import Rollout, random_rollout, simulator


def found_and_real(env_id: str) -> tuple[torch.Tensor, Rollout]:
    real, reward = random_rollout(env_id), get_task(env_id).reward
    assert reward is not None
    return reward(real.obs, real.act, real.next_obs), real


def test_the_reward_of_the_inverted_pendulum_is_exact() -> None:
    found, real = found_and_real("InvertedPendulum-v5")
    assert torch.equal(found, real.reward)
    assert set(found.tolist()) == {0.0, 1.0}


def test_the_reward_of_the_pendulum_is_exact() -> None:
    found, real = found_and_real("Pendulum-v1")
    # The observation is float32: 2e-7 relative to rewards down to -16.
    torch.testing.assert_close(found, real.reward, atol=4e-6, rtol=0.0)
    assert found.min() < -10


def test_a_torque_beyond_the_limit_counts_clipped() -> None:
    env = simulator("Pendulum-v1")
    obs, _ = env.reset(seed=1)
    next_obs, real, *_ = env.step(np.array([7.5], dtype=np.float32))
    reward = get_task("Pendulum-v1").reward
    assert reward is not None
    found = reward(*(torch.from_numpy(x).double() for x in (obs, np.array([7.5]), next_obs)))
    assert abs(found.item() - real) < 4e-6


def test_the_tip_of_the_double_pendulum_is_where_the_simulator_puts_it() -> None:
    env = simulator("InvertedDoublePendulum-v5")
    for q in np.random.default_rng(0).uniform(-3, 3, (50, 3)):
        env.data.qpos[:] = q
        mujoco.mj_kinematics(env.model, env.data)
        x, y = tip(torch.from_numpy(env._get_obs()))
        np.testing.assert_allclose([x, y], env.data.site_xpos[0, [0, 2]], atol=1e-12)


def test_the_reward_of_the_double_pendulum_is_exact_where_nothing_is_clipped() -> None:
    found, real = found_and_real("InvertedDoublePendulum-v5")
    on_rail = real.next_obs[:, 0].abs() < 0.9
    unclipped = (real.next_obs[:, 5:8].abs() < 10).all(-1)
    clear = (tip(real.next_obs)[1] - 1).abs() > 1e-4
    plain = on_rail & unclipped & clear
    error = (found - real.reward).abs()[plain]
    assert plain.double().mean() > 0.99
    # The environment's tip is that of the last Runge-Kutta stage, off by some 1e-5 m.
    assert error.max() < 1e-3
    assert error.quantile(0.99) < 1e-4


def test_names_of_the_pendulums_stand_where_the_joints_are() -> None:
    for env_id, joints in (
        ("InvertedPendulum-v5", ("x", "angle")),
        ("InvertedDoublePendulum-v5", ("x", "angle1", "angle2")),
    ):
        env = simulator(env_id)
        names = get_task(env_id).observation_names
        still = env._get_obs()
        for k, joint in enumerate(joints):
            for state, expected in (
                (env.data.qpos, {joint, f"sin_{joint}", f"cos_{joint}"}),
                (env.data.qvel, {f"vel_{joint}"}),
            ):
                state[k] += 0.01
                moved = {names[i] for i in np.flatnonzero(env._get_obs() != still)}
                state[k] -= 0.01
                still = env._get_obs()
                assert moved == expected & set(names)
