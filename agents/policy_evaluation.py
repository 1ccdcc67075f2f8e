"""Regular evaluations of a policy in the real environment, by a process of their own."""

import ctypes
import math
import multiprocessing
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import RawValue
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy import ndarray
from torch import Tensor

from mbrl_bilevel.agents.behaviour import BehaviourPolicy, PolicyAgent
from mbrl_bilevel.agents.episode import Episode, run_episode
from mbrl_bilevel.agents.main_script import KILLED, check_main_script, why_never_started
from mbrl_bilevel.agents.parallel import WorkerDied, end_with_parent, episode_seeds, sigint_ignored
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.stepping import CheckedSteps
from mbrl_bilevel.plugins import import_plugins
from mbrl_bilevel.warning_lines import SayOnce

FIRST_EPISODE = 1 << 30  # training's episodes come before: their seeds are others


@runtime_checkable
class Critics(Protocol):
    """What a policy is expected to earn."""

    @property
    def discount(self) -> float:
        """Discount factor gamma of the values."""

    @property
    def termination_cost(self) -> float:
        """What the values take off the reward of a step that terminates the episode."""

    def values(self, obs: Float[Tensor, "b o"], act: Float[Tensor, "b a"]) -> Float[Tensor, "b"]:
        """Q(s, a), in the environment's own units of reward."""


class Estimate(NamedTuple):
    """The mean of Q over first actions, and what it was discounted by."""

    q: float
    discount: float
    termination_cost: float


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
        # Shared with the worker: tells one that was killed from one that never started.
        self._began = RawValue(ctypes.c_bool, False)
        self._waiting: tuple[int, Future[list[Episode]]] | None = None
        self._starts: ndarray | None = None
        self._estimate: Estimate | None = None

    def start(self, step: int, policy: BehaviourPolicy, critics: Critics | None = None) -> None:
        """Begins the evaluation of step `step`; the one before must have been collected.

        `critics` are held against the returns, by their values of the episodes' first actions.

        Raises:
            InputError: a main script that new processes cannot read again.
            WorkerDied: the process was killed since.
        """
        assert self._waiting is None
        self.estimate(policy, critics)
        with sigint_ignored():
            if self._pool is None:
                check_main_script()
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(
                    1, context, initializer=_prepare, initargs=(self._began,)
                )
            try:
                job = self._pool.submit(
                    played, self.env, self.seed, self.episodes, policy, self.max_steps
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
            episodes = job.result()
        except BrokenProcessPool:
            raise self._died(step) from None
        return step, self.metrics(episodes)

    def estimate(self, policy: BehaviourPolicy, critics: Critics | None) -> None:
        """Notes what critics of this moment expect of the policy's first actions."""
        self._estimate = None
        if critics is None:
            return
        if self._starts is None:  # the same every time
            self._starts = starts(self.env, self.seed, self.episodes)
        values = critics.values(
            torch.from_numpy(self._starts), torch.from_numpy(policy(self._starts))
        )
        q = float(values.mean())
        if math.isfinite(q):  # critics that have diverged are the training's to report
            self._estimate = Estimate(q, critics.discount, critics.termination_cost)

    def metrics(self, episodes: Sequence[Episode]) -> dict[str, float]:
        """Of episodes of the policy that was last estimated."""
        returns = [episode.total_reward for episode in episodes]
        found = {
            "evaluation/return": float(np.mean(returns)),
            "evaluation/return_std": float(np.std(returns)),
        }
        for part in episodes[0].reward_parts:
            sums = [episode.reward_parts.get(part, 0.0) for episode in episodes]
            found[f"evaluation/{part}"] = float(np.mean(sums))
        if self._estimate is not None:
            q, discount, cost = self._estimate
            discounted = [episode.discounted_return(discount, cost) for episode in episodes]
            found |= {"evaluation/q": q, "evaluation/discounted_return": float(np.mean(discounted))}
        return found

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
    found = played(of, seed, episodes, policy, max_steps)
    return [episode.total_reward for episode in found]


def played(
    of: str | EnvSpec,
    seed: int,
    episodes: int,
    policy: BehaviourPolicy,
    max_steps: int | None = None,
) -> list[Episode]:
    """The episodes of `play`."""
    env = make_env(of)
    agent = PolicyAgent(policy, None)
    found = [
        run_episode(agent, env, s, name=_name(i), max_steps=max_steps)
        for i, s in enumerate(_seeds(seed, episodes))
    ]
    env.close()
    return found


def starts(of: str | EnvSpec, seed: int, episodes: int) -> Float32[ndarray, "b o"]:
    """The first observations of those episodes."""
    env = make_env(of)
    steps = CheckedSteps(env)
    found = [steps.reset(s, _name(i)) for i, s in enumerate(_seeds(seed, episodes))]
    env.close()
    return np.stack(found).astype(np.float32)


def _seeds(seed: int, episodes: int) -> list[int]:
    return [episode_seeds(seed, FIRST_EPISODE + i)[0] for i in range(episodes)]


def _name(episode: int) -> str:
    return f"evaluation episode {episode}"


def _prepare(began: Any) -> None:
    began.value = True
    end_with_parent()
    import_plugins()
    warnings.showwarning = SayOnce()
    # The training has the other cores, and an actor of one row gains nothing from more.
    torch.set_num_threads(1)
