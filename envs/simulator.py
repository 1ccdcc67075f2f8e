"""The real simulation as the planner's model: exact observations and rewards, the upper bound.

`Simulator(env)` looks ahead from the present state of a live environment without touching it, so it
tells what a planner reaches with a perfect model.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from jaxtyping import Float, Shaped
from mujoco.rollout import Rollout
from numpy import ndarray
from torch import Tensor

from mbrl_bilevel.envs.pendulum_simulator import PendulumSimulator
from mbrl_bilevel.envs.readouts import READOUTS, Readout
from mbrl_bilevel.envs.simulated_wrappers import SimulatedWrappers
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.protocols import Trajectories
from mbrl_bilevel.wording import counted

# MuJoCo restarts a diverged simulation from its initial state at time 0, and its rollouts stop at
# any warning. A clock that begins far from 0 tells both from a future that went well.
CLOCK = 1000.0


class Simulator:
    """A trajectory model of one particle that steps copies of live environments.

    For HalfCheetah, Hopper, Walker2d, Swimmer, Ant, Reacher, Pusher, InvertedPendulum and
    InvertedDoublePendulum (gymnasium's v5 tasks, with any arguments) and Pendulum-v1, in wrappers
    that `SimulatedWrappers` knows: actions and rewards are those of the outermost. Everything
    physical is read from the environment at each call and nothing is ever written to it, not even
    random numbers. Give the task `reward=None` for the exact rewards to count in a plan.

    Args:
        envs: a live environment, or one for each row of observations.
        threads: how many simulate candidates at once.

    Raises:
        InputError: an environment or a wrapper that is not one of the above, or fewer than 1
            threads.
    """

    def __init__(self, envs: gymnasium.Env | Sequence[gymnasium.Env], *, threads: int = 1) -> None:
        if threads < 1:
            raise InputError(f"simulator threads {threads}: it must be at least 1")
        envs = [envs] if isinstance(envs, gymnasium.Env) else list(envs)
        self._simulators = [simulator_of(env, threads) for env in envs]
        self._wrappers = [SimulatedWrappers(env) for env in envs]

    @torch.no_grad()
    def trajectories(
        self,
        obs: Float[Tensor, "b o"],
        actions: Float[Tensor, "b n t a"],
        generator: torch.Generator,
    ) -> Trajectories:
        """What `env.step` would return for each sequence of actions, in the dtype of `obs`.

        The rewards are those of `env.step`, beyond a termination too; a step in which the
        simulation diverges and all after it are NaN. `generator` is not used: the simulation is
        deterministic.

        Raises:
            InputError: another number of observations than of environments, or observations that
                their environments do not show at present.
        """
        if not len(obs) == len(actions) == len(self._simulators):
            raise InputError(
                f"{counted(len(obs), 'observation')} for a simulator of "
                f"{counted(len(self._simulators), 'environment')}: give Simulator one environment "
                "for each row"
            )
        rows = []
        both = zip(self._simulators, self._wrappers, strict=True)
        for row, sequences, (simulator, wrappers) in zip(obs, actions, both, strict=True):
            _check_present(row.detach().cpu().numpy(), simulator.present())
            given = wrappers.actions(sequences.detach().cpu().numpy())
            shown, paid = simulator.simulate(given)
            rows.append((shown, wrappers.rewards(paid)))
        observations, rewards = (
            torch.from_numpy(np.stack(parts)).to(obs).unsqueeze(0)
            for parts in zip(*rows, strict=True)
        )
        return Trajectories(observations, rewards)


def simulator_of(env: gymnasium.Env, threads: int = 1) -> "MujocoSimulator | PendulumSimulator":
    """What simulates the bare environment within wrappers.

    Raises:
        InputError: an environment that is not one of those of `Simulator`.
    """
    bare: Any = env.unwrapped
    if type(bare) is PendulumEnv:
        return PendulumSimulator(bare)
    if type(bare) not in READOUTS:
        name = bare.spec.id if bare.spec is not None else type(bare).__name__
        known = ", ".join(kind.__name__.removesuffix("Env") + "-v5" for kind in READOUTS)
        raise InputError(
            f"the simulator cannot look ahead in {name}; it knows {known} and Pendulum-v1: "
            "train a model instead"
        )
    return MujocoSimulator(bare, READOUTS[type(bare)], threads)


def _check_present(given: ndarray, present: ndarray) -> None:
    # float32 observations differ from the state's by their rounding
    if given.shape != present.shape or not np.allclose(given, present, rtol=1e-4, atol=1e-4):
        raise InputError(
            f"the observation {given.tolist()} is not what the simulator's environment shows at "
            f"present, {present.tolist()}: give Simulator the environment that is being stepped"
        )


class MujocoSimulator:
    """Copies of a MuJoCo environment's state, rolled out.

    Where the state after a step says all, `mujoco.rollout` simulates whole batches; where the task
    reads more (`Readout.derived`), the copies are stepped one by one.
    """

    def __init__(self, env: Any, readout: Readout, threads: int) -> None:
        self.env, self.readout = env, readout
        self.fields = ("qpos", "qvel", *readout.derived)
        self._copies = [mujoco.MjData(env.model) for _ in range(threads)]
        # without a pool, rollouts run on the calling thread
        pool = threads if threads > 1 else 0
        self._rollout = None if readout.derived else Rollout(nthread=pool)
        self._executor = ThreadPoolExecutor(threads) if readout.derived and pool else None

    def present(self) -> Float[ndarray, "o"]:
        """The observation of the live environment now."""
        live = {name: getattr(self.env.data, name)[None, None] for name in self.fields}
        return self.readout.observation(self.env, live)[0, 0]

    def starts(self, obs: Float[ndarray, "n o"]) -> Float[ndarray, "n state"]:
        """Whole states that show these observations, which clipped velocities stay clipped in.

        Raises:
            InputError: a task whose observations do not tell the state.
        """
        if self.readout.state is None:
            known = ", ".join(
                kind.__name__.removesuffix("Env") + "-v5"
                for kind, readout in READOUTS.items()
                if readout.state is not None
            )
            raise InputError(
                f"observations of {type(self.env).__name__} do not tell its whole state: simulate "
                f"from its present state, or choose one of {known} and Pendulum-v1"
            )
        states = np.repeat(self._start(mujoco.mjtState.mjSTATE_FULLPHYSICS)[None], len(obs), 0)
        qpos, qvel = self.readout.state(self.env, obs.astype(float))
        model = self.env.model
        states[:, 1 : 1 + model.nq] = qpos
        states[:, 1 + model.nq : 1 + model.nq + model.nv] = qvel
        return states

    def simulate(
        self,
        actions: Shaped[ndarray, "n t a"],
        starts: Float[ndarray, "n state"] | None = None,
    ) -> tuple[Float[ndarray, "n t+1 o"], Float[ndarray, "n t"]]:
        """Observations and rewards of sequences of actions, from the present state or `starts`."""
        with _no_warnings():
            states = self._roll(actions, starts) if self._rollout else self._step(actions)
        observations = self.readout.observation(self.env, states)
        rewards = self.readout.reward(self.env, states, actions).astype(float)
        steps = np.arange(1, actions.shape[1] + 1)
        late = np.abs(states["time"][:, 1:] - CLOCK - steps * self.env.dt)
        broken = np.logical_or.accumulate(~(late < self.env.model.opt.timestep / 2), axis=1)
        observations[:, 1:][broken] = np.nan
        rewards[broken] = np.nan
        return observations, rewards

    def _start(self, kind: mujoco.mjtState) -> ndarray:
        """A copy of the live environment's state with another clock."""
        model = self.env.model
        state = np.empty(mujoco.mj_stateSize(model, kind))
        mujoco.mj_getState(model, self.env.data, state, kind)
        state[0] = CLOCK
        return state

    def _roll(
        self, actions: Shaped[ndarray, "n t a"], starts: Float[ndarray, "n state"] | None
    ) -> dict[str, ndarray]:
        assert self._rollout is not None
        n, (skip, model) = len(actions), (self.env.frame_skip, self.env.model)
        present = self.env.data.qacc_warmstart
        warm = present if starts is None else np.zeros_like(present)
        if starts is None:
            start = self._start(mujoco.mjtState.mjSTATE_FULLPHYSICS)
            starts = np.broadcast_to(start, (n, len(start)))
        after, _ = self._rollout.rollout(
            model,
            self._copies,
            starts,
            np.repeat(actions.astype(float), skip, axis=1),
            initial_warmstart=warm[None],
        )
        states = np.empty((n, actions.shape[1] + 1, starts.shape[1]))
        states[:, 0], states[:, 1:] = starts, after[:, skip - 1 :: skip]
        time, qpos, qvel, _ = np.split(states, np.cumsum([1, model.nq, model.nv]), axis=-1)
        return {"time": time[..., 0], "qpos": qpos, "qvel": qvel}

    def _step(self, actions: Shaped[ndarray, "n t a"]) -> dict[str, ndarray]:
        n, horizon, _ = actions.shape
        states = {"time": np.full((n, horizon + 1), CLOCK)}
        for name in self.fields:
            now = getattr(self.env.data, name)
            states[name] = np.empty((n, horizon + 1, *now.shape))
            states[name][:, 0] = now
        start = self._start(mujoco.mjtState.mjSTATE_INTEGRATION)
        chunks = np.array_split(np.arange(n), len(self._copies))
        run = self._executor.map if self._executor else map
        list(
            run(
                lambda copy, rows: self._step_rows(copy, rows, start, actions, states),
                self._copies,
                chunks,
            )
        )
        return states

    def _step_rows(
        self,
        copy: mujoco.MjData,
        rows: ndarray,
        start: ndarray,
        actions: ndarray,
        states: dict[str, ndarray],
    ) -> None:
        """Steps one copy through the sequences `rows`, as `MujocoEnv.do_simulation` does."""
        model, skip = self.env.model, self.env.frame_skip
        forces = "cfrc_ext" in self.fields
        time, control = states["time"], copy.ctrl
        pairs = [(states[name], getattr(copy, name)) for name in self.fields]
        for i in rows:
            mujoco.mj_setState(model, copy, start, mujoco.mjtState.mjSTATE_INTEGRATION)
            for t, action in enumerate(actions[i], 1):
                control[:] = action
                mujoco.mj_step(model, copy, skip)
                if forces:
                    mujoco.mj_rnePostConstraint(model, copy)
                time[i, t] = copy.time
                for kept, field in pairs:
                    kept[i, t] = field


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Keeps MuJoCo from reporting imagined futures that diverge as if the live one had."""
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)
