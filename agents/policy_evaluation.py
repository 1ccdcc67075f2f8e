"""Regular evaluations of a policy in the real environment, by a process of their own."""

import ctypes
import multiprocessing
import warnings
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import RawValue
from types import TracebackType
from typing import Any

import numpy as np
import torch

from mbrl_bilevel.agents.behaviour import BehaviourPolicy, PolicyAgent
from mbrl_bilevel.agents.episode import run_episode
from mbrl_bilevel.agents.main_script import KILLED, check_main_script, why_never_started
from mbrl_bilevel.agents.parallel import WorkerDied, end_with_parent, episode_seeds, sigint_ignored
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.plugins import import_plugins
from mbrl_bilevel.warning_lines import SayOnce

FIRST_EPISODE = 1 << 30  # training's episodes come before: their seeds are others


class PolicyEvaluation:
    """Plays `episodes` episodes of a policy's mean action while training goes on.

    One evaluation runs at a time; the same policy gives the same returns. Episodes end after
    `max_steps` steps at the latest; without it, as the environment ends them.
    """

    def __init__(
        self, env: str | EnvSpec, seed: int, episodes: int, max_steps: int | None = None
    ) -> None:
        self.env, self.seed, self.episodes, self.max_steps = env, seed, episodes, max_steps
        self._pool: ProcessPoolExecutor | None = None
        self._began = RawValue(ctypes.c_bool, False)
        self._waiting: tuple[int, Future[list[float]]] | None = None

    def start(self, step: int, policy: BehaviourPolicy) -> None:
        """Begins the evaluation of step `step`; the one before must have been collected.

        Raises:
            InputError: a main script that new processes cannot read again.
            WorkerDied: the process was killed since.
        """
        assert self._waiting is None
        with sigint_ignored():
            if self._pool is None:
                check_main_script()
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(
                    1, context, initializer=_prepare, initargs=(self._began,)
                )
            try:
                job = self._pool.submit(
                    play, self.env, self.seed, self.episodes, policy, self.max_steps
                )
            except BrokenProcessPool:
                raise self._died(step) from None
        self._waiting = step, job

    def collect(self) -> tuple[int, dict[str, float]] | None:
        """Step and metrics of the evaluation under way, once it is done; None if there is none.

        Raises:
            WorkerDied: its process was killed or crashed.
        """
        if self._waiting is None:
            return None
        (step, job), self._waiting = self._waiting, None
        try:
            returns = job.result()
        except BrokenProcessPool:
            raise self._died(step) from None
        return step, {
            "evaluation/return": float(np.mean(returns)),
            "evaluation/return_std": float(np.std(returns)),
        }

    def _died(self, step: int) -> WorkerDied:
        why = KILLED if self._began.value else why_never_started()
        return WorkerDied(f"the process that evaluates the policy of step {step} died ({why})")

    def __enter__(self) -> "PolicyEvaluation":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def play(
    of: str | EnvSpec,
    seed: int,
    episodes: int,
    policy: BehaviourPolicy,
    max_steps: int | None = None,
) -> list[float]:
    """Returns of the policy's mean action in episodes that `seed` decides."""
    env = make_env(of)
    agent = PolicyAgent(policy, None)
    seeds = [episode_seeds(seed, FIRST_EPISODE + i)[0] for i in range(episodes)]
    played = [
        run_episode(agent, env, s, name=f"evaluation episode {i}", max_steps=max_steps)
        for i, s in enumerate(seeds)
    ]
    env.close()
    return [episode.total_reward for episode in played]


def _prepare(began: Any) -> None:
    began.value = True
    end_with_parent()
    import_plugins()
    warnings.showwarning = SayOnce()
    torch.set_num_threads(1)
