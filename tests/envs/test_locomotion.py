"""The running tasks: exact terms exactly, the approximated velocity within its stated error."""

import mujoco
import numpy as np
import pytest
import torch

from mbrl_bilevel.envs.locomotion import ANT_NAMES
from mbrl_bilevel.envs.tasks import get_task
from tests.envs.real_rollouts import behaviour_rollout, r_squared, random_rollout, rmse, simulator

# Bounds a third wider than the errors stated in the docstrings: other seeds, fewer steps.
RANDOM = {
    "HalfCheetah-v5": (0.972, 0.12),
    "Hopper-v5": (0.9998, 0.0055),
    "Walker2d-v5": (0.999, 0.02),
    "Ant-v5": (0.98, 0.10),
    "Swimmer-v5": (0.997, 0.025),
}
BEHAVIOUR = {"HalfCheetah-v5": (0.97, 0.225), "Hopper-v5": (0.9998, 0.0067)}
VELOCITY = {
    "HalfCheetah-v5": 8,
    "Hopper-v5": 5,
    "Walker2d-v5": 8,
    "Ant-v5": 13,
    "Swimmer-v5": 3,
}
NAME_OF_JOINT = {
    "rootz": "z",
    "rooty": "angle",
    "free_body_rot": "angle",
    "slider2": "y",
    "slider1": "x",
    "rootx": "x",
    **{
        f"{end[0]}{part}": f"{end}_{part}"
        for end in ("back", "front")
        for part in ("thigh", "shin", "foot")
    },
    **{f"{part}_joint": part for part in ("thigh", "leg", "foot")},
    **{f"{part}_left_joint": f"left_{part}" for part in ("thigh", "leg", "foot")},
    **{f"motor{k}_rot": f"rotor{k}" for k in (1, 2)},
    **{
        f"{joint}_{k}": f"{leg}_{joint}"
        for joint in ("hip", "ankle")
        for k, leg in enumerate(("front_left", "front_right", "back_left", "back_right"), 1)
    },
}


@pytest.mark.parametrize("env_id", VELOCITY)
def test_the_reward_is_within_its_stated_error(env_id: str) -> None:
    real, task = random_rollout(env_id), get_task(env_id)
    assert task.reward is not None
    found = task.reward(real.obs, real.act, real.next_obs)
    least, most = RANDOM[env_id]
    assert r_squared(found, real.reward) > least
    assert rmse(found, real.reward) < most


@pytest.mark.parametrize("env_id", BEHAVIOUR)
@pytest.mark.parametrize("policy", ["simple", "medium", "good"])
def test_the_reward_on_behaviour_data_is_within_its_stated_error(env_id: str, policy: str) -> None:
    real, task = behaviour_rollout(env_id, policy), get_task(env_id)
    assert task.reward is not None
    found = task.reward(real.obs, real.act, real.next_obs)
    least, most = BEHAVIOUR[env_id]
    assert r_squared(found, real.reward) > least
    assert rmse(found, real.reward) < most


@pytest.mark.parametrize("env_id", VELOCITY)
def test_all_but_the_velocity_is_exact(env_id: str) -> None:
    real, task = random_rollout(env_id), get_task(env_id)
    assert task.reward is not None
    # From a state to itself the mean velocity is that state's velocity, whatever the rule.
    found = task.reward(real.next_obs, real.act, real.next_obs) - real.next_obs[:, VELOCITY[env_id]]
    costs = real.reward - real.term("reward_forward")
    torch.testing.assert_close(found, costs, atol=2e-6, rtol=0.0)  # actions are float32


def test_the_contact_cost_of_the_ant_occurs() -> None:
    assert (random_rollout("Ant-v5").term("reward_contact") < -1e-3).sum() > 100


def test_contact_forces_of_an_imagined_ant_count_clipped() -> None:
    obs, act = random_rollout("Ant-v5").next_obs[:5].clone(), torch.zeros(5, 8).double()
    reward = get_task("Ant-v5").reward
    assert reward is not None
    obs[:, 27:] = 1.0
    wild = obs.clone()
    wild[:, 27:] = -300.0
    torch.testing.assert_close(reward(obs, act, wild), reward(obs, act, obs))


def test_contact_names_hold_torque_before_force() -> None:
    """The ground pushes feet up: a vertical force is never negative, a torque has both signs."""
    next_obs = random_rollout("Ant-v5").next_obs
    for leg in ("front_left", "front_right", "back_left", "back_right"):
        lift = next_obs[:, ANT_NAMES.index(f"contact_{leg}_lower_force_z")]
        turn = next_obs[:, ANT_NAMES.index(f"contact_{leg}_lower_torque_x")]
        assert lift.min() >= 0
        assert lift.max() == 1
        assert turn.min() < 0 < turn.max()


@pytest.mark.parametrize("env_id", VELOCITY)
def test_names_stand_where_the_simulator_puts_the_joints(env_id: str) -> None:
    env = simulator(env_id)
    names = get_task(env_id).observation_names
    model = env.model
    still = env._get_obs()
    for k in range(model.njnt):
        joint = model.joint(k)
        if joint.type[0] == mujoco.mjtJoint.mjJNT_FREE:
            continue
        stem = NAME_OF_JOINT[joint.name]
        position = stem if stem in ("x", "y", "z", "angle") else f"{stem}_angle"
        for state, at, name in (
            (env.data.qpos, joint.qposadr[0], position),
            (env.data.qvel, joint.dofadr[0], f"vel_{stem}"),
        ):
            before = state[at]
            state[at] += 0.01
            moved = np.flatnonzero(env._get_obs() != still)
            state[at] = before
            assert {names[i] for i in moved} == {name} - {"x", "y"}  # both are left out


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Walker2d-v5", "Ant-v5"])
def test_termination_agrees_at_the_edges_of_health(env_id: str) -> None:
    """States drawn around every threshold and exactly on it, judged by the environment itself."""
    env = simulator(env_id)
    z, pitch = (2, None) if env_id == "Ant-v5" else (1, 2)
    heights = {"Hopper-v5": (0.7,), "Walker2d-v5": (0.8, 2.0), "Ant-v5": (0.2, 1.0)}[env_id]
    limit = {"Hopper-v5": 0.2, "Walker2d-v5": 1.0, "Ant-v5": 1.0}[env_id]
    start = env.data.qpos.copy()
    cases = []
    for height in heights:
        for around in (np.nextafter(height, 0), height, np.nextafter(height, 9)):
            cases.append({z: around})
    if pitch is not None:
        for sign in (-1, 1):
            for around in (np.nextafter(limit, 0), limit, np.nextafter(limit, 9)):
                cases.append({pitch: sign * around})
    cases += [{5: bound * sign} for bound in (99.0, 100.0, 101.0) for sign in (-1, 1)]
    cases += [{z: 150.0}]
    observed, unhealthy = [], []
    for case in cases:
        env.data.qpos[:] = start
        for at, value in case.items():
            env.data.qpos[at] = value
        observed.append(env._get_obs())
        unhealthy.append(not env.is_healthy)
    found = get_task(env_id).terminated(torch.from_numpy(np.array(observed)))
    assert found.tolist() == unhealthy
    assert 0 < sum(unhealthy) < len(unhealthy)


def test_clipped_velocities_leave_the_reward_of_the_hopper_alone() -> None:
    """Joint velocities are observed clipped to 10 on good behaviour; the x velocity stays clear."""
    next_obs = behaviour_rollout("Hopper-v5", "good").next_obs
    assert next_obs[:, VELOCITY["Hopper-v5"] :].abs().max() == 10
    assert next_obs[:, VELOCITY["Hopper-v5"]].abs().max() < 9
