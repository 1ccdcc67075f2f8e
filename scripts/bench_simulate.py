"""Steps a second of the simulator that planners look ahead in, beside the environment itself."""

from collections.abc import Callable
from statistics import median
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from mujoco.rollout import Rollout

from mbrl_bilevel.envs.simulator import Simulator
from mbrl_bilevel.scripts.measurement import Measurement
from mbrl_bilevel.scripts.timing import median_ratio, take_turns

ENV, SEQUENCES, HORIZON = "HalfCheetah-v5", 128, 30


def measure(rounds: int, device: torch.device, seed: int) -> Measurement:
    """128 sequences of 30 steps from one state, by one thread; MuJoCo computes on the CPU."""
    env = gymnasium.make(ENV)
    obs, _ = env.reset(seed=seed)
    bare: Any = env.unwrapped
    generator = torch.Generator().manual_seed(seed)
    shape = (1, SEQUENCES, HORIZON, bare.model.nu)
    actions = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
    simulator, row = Simulator(env), torch.as_tensor(obs).unsqueeze(0)
    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: simulator.trajectories(row, actions, generator),
        "peer": _environment(gymnasium.make(ENV), bare, actions[0].numpy()),
        "limit": _bare(bare, actions[0].numpy()),
    }
    seconds = take_turns(candidates, rounds)
    env.close()
    rate = {name: SEQUENCES * HORIZON / median(s) / 1e3 for name, s in seconds.items()}
    return Measurement(
        ours=rate["ours"],
        peer=rate["peer"],
        peer_name=f"gymnasium's {ENV}, set back for each sequence",
        ratio=median_ratio(seconds["peer"], seconds["ours"]),
        limit=rate["limit"],
        share_of_limit=median_ratio(seconds["limit"], seconds["ours"]),
        unit="thousand steps/s",
        more={},
    )


def _environment(env: gymnasium.Env, start: Any, actions: np.ndarray) -> Callable[[], None]:
    env.reset(seed=0)
    copied: Any = env.unwrapped
    qpos, qvel = start.data.qpos.copy(), start.data.qvel.copy()

    def run() -> None:
        for sequence in actions:
            copied.set_state(qpos, qvel)
            for action in sequence:
                copied.step(action)

    return run


def _bare(env: Any, actions: np.ndarray) -> Callable[[], None]:
    """MuJoCo's own batches of rollouts, in arrays that are kept."""
    model = env.model
    start = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS))
    mujoco.mj_getState(model, env.data, start, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    starts = np.repeat(start[None], len(actions), 0)
    controls = np.repeat(actions, env.frame_skip, axis=1)
    states = np.empty((len(actions), controls.shape[1], len(start)))
    rollout, data = Rollout(nthread=0), mujoco.MjData(model)

    def run() -> None:
        rollout.rollout(model, data, starts, control=controls, state=states)

    return run
