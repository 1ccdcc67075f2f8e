"""Batches of futures of a MuJoCo environment, simulated from copies of its present state."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float, Shaped
from mujoco.rollout import Rollout
from numpy import ndarray

from mbrl_bilevel.envs.readouts import READOUTS, Readout
from mbrl_bilevel.errors import InputError

# MuJoCo restarts a diverged simulation from its initial state at time 0, and its rollouts stop at
# any warning. A clock that begins far from 0 tells both from a future that went well.
CLOCK = 1000.0


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
        return self._read(states, actions)

    def follow(
        self,
        choose: Callable[[ndarray, ndarray], ndarray],
        deviations: Shaped[ndarray, "n t a"],
        inner: Callable[[ndarray], ndarray],
    ) -> tuple[Float[ndarray, "n t+1 o"], Float[ndarray, "n t"], Shaped[ndarray, "n t a"]]:
        """As `simulate`, and the actions, each chosen by state and deviation; `inner` wraps them.

        Contact forces are solved from 0 at every step after the first, and so come out within the
        solver's tolerance of those of one long rollout.
        """
        start = self._start(mujoco.mjtState.mjSTATE_FULLPHYSICS)
        n, horizon, _ = deviations.shape
        full = np.empty((n, horizon + 1, len(start)))
        full[:, 0], taken = start, np.empty_like(deviations)
        warmstart = self.env.data.qacc_warmstart[None]
        with _no_warnings():
            for t in range(horizon):
                now = self.readout.observation(self.env, self._fields(full[:, t : t + 1]))[:, 0]
                taken[:, t] = choose(now, deviations[:, t])
                after = self._advance(full[:, t], inner(taken[:, t : t + 1]), warmstart)
                full[:, t + 1], warmstart = after[:, -1], np.zeros_like(warmstart)
        return *self._read(self._fields(full), inner(taken)), taken

    def _read(
        self, states: dict[str, ndarray], actions: Shaped[ndarray, "n t a"]
    ) -> tuple[Float[ndarray, "n t+1 o"], Float[ndarray, "n t"]]:
        """Observations and rewards of simulated states, NaN from where one diverged."""
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
        present = self.env.data.qacc_warmstart
        warmstart = present if starts is None else np.zeros_like(present)
        if starts is None:
            start = self._start(mujoco.mjtState.mjSTATE_FULLPHYSICS)
            starts = np.broadcast_to(start, (len(actions), len(start)))
        states = np.empty((len(actions), actions.shape[1] + 1, starts.shape[1]))
        states[:, 0], states[:, 1:] = starts, self._advance(starts, actions, warmstart[None])
        return self._fields(states)

    def _advance(
        self,
        start: Float[ndarray, "n s"],
        actions: Shaped[ndarray, "n t a"],
        warmstart: Float[ndarray, "1 v"],
    ) -> Float[ndarray, "n t s"]:
        """Full states after each step."""
        assert self._rollout is not None
        skip = self.env.frame_skip
        after, _ = self._rollout.rollout(
            self.env.model,
            self._copies,
            start,
            np.repeat(actions.astype(float), skip, axis=1),
            initial_warmstart=warmstart,
        )
        return after[:, skip - 1 :: skip]

    def _fields(self, states: Float[ndarray, "n s state"]) -> dict[str, ndarray]:
        model = self.env.model
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
