"""Episodes in several processes at once."""

import ctypes
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.sharedctypes import RawArray, RawValue
from typing import Any

import numpy as np
import torch

from mbrl_bilevel.agents.episode import Episode
from mbrl_bilevel.agents.main_script import KILLED, check_main_script, why_never_started
from mbrl_bilevel.plugins import import_plugins
from mbrl_bilevel.products import products_in_use, use_products
from mbrl_bilevel.warning_lines import SayOnce

Play = Callable[[int, Callable[[int, float], None]], Episode]
Tick = Callable[[Sequence[int], Sequence[float]], None]


@dataclass(frozen=True)
class InTurn:
    """Episodes of several agents interleaved: episode 0 of each, then episode 1 of each, and so on.

    Whenever it is interrupted, the agents have finished about the same episodes.
    """

    plays: tuple[Play, ...]

    def __call__(self, index: int, on_step: Callable[[int, float], None]) -> Episode:
        episode, agent = self.place(index)
        return self.plays[agent](episode, on_step)

    def place(self, index: int) -> tuple[int, int]:
        """The number of the episode, and of the agent that plays it."""
        return divmod(index, len(self.plays))


class WorkerDied(RuntimeError):
    """A process that played an episode was killed or crashed."""


def episode_seeds(seed: int, index: int) -> tuple[int, int]:
    """Seeds of the environment and of the agent for episode `index`, below 2^31.

    They depend on `seed` and `index` alone, so the order and place of episodes do not matter.
    """
    # Below 2^31, which every simulator takes as a seed.
    # Not seed + index: neighbouring seeds of an evaluation would share episodes.
    state = np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(2)
    return int(state[0] >> 1), int(state[1] >> 1)


def play_episodes(
    play: Play, episodes: int, *, workers: int, threads: int = 1, on_tick: Tick | None = None
) -> Generator[tuple[int, Episode], None, None]:
    """Yields (index, episode) as they finish, each from `play(index, on_step)` in a new process.

    `play` must pickle, and call `on_step(length, total_reward)` after each step; `on_tick` gets
    every episode's length and total so far, about five times a second. Each process has `threads`
    torch threads and multiplies as this one does (`products`). Leaving the iteration early, as
    Ctrl-C does, ends episodes at their next step.

    Raises:
        InputError: a main script that new processes cannot read again.
        WorkerDied: a process was killed or crashed.
    """
    check_main_script()
    lengths, totals = RawArray(ctypes.c_longlong, episodes), RawArray(ctypes.c_double, episodes)
    stop, began = RawValue(ctypes.c_bool, False), RawValue(ctypes.c_bool, False)
    # Spawned, not forked: a fork copies the locks of torch's threads in whatever state they are.
    pool = ProcessPoolExecutor(
        min(workers, episodes),
        multiprocessing.get_context("spawn"),
        initializer=_prepare,
        initargs=(lengths, totals, stop, began, threads, products_in_use()),
    )
    try:
        with sigint_ignored():
            waiting = {pool.submit(_play, play, i): i for i in range(episodes)}
        while waiting:
            done, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            if on_tick is not None:
                on_tick(lengths[:], totals[:])
            for future in done:
                yield waiting[future], future.result()
                del waiting[future]
        if on_tick is not None:
            on_tick(lengths[:], totals[:])
    except BrokenProcessPool:
        raise WorkerDied(
            f"a process died with {len(waiting)} of {episodes} episodes unfinished "
            f"({KILLED if began.value else why_never_started()}); try fewer --workers"
        ) from None
    finally:
        stop.value = True
        pool.shutdown(cancel_futures=True)


@contextmanager
def sigint_ignored() -> Iterator[None]:
    """Processes started meanwhile leave Ctrl-C to their parent, from their first moment on."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # signals belong to the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_with_parent() -> None:
    """Ends this process when its parent ends, even by SIGKILL.

    A worker that waits for work would wait for ever: it holds the other end of its queue too.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_outlive, args=(parent.sentinel,), daemon=True).start()


def _outlive(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


_shared: Any = None


def _prepare(lengths: Any, totals: Any, stop: Any, began: Any, threads: int, products: str) -> None:
    global _shared
    _shared = lengths, totals, stop
    began.value = True
    end_with_parent()
    import_plugins()
    warnings.showwarning = SayOnce()
    torch.set_num_threads(threads)
    use_products(products)
    # Products of denormal numbers take many times as long, and saturated actors make them.
    torch.set_flush_denormal(True)


def _play(play: Play, index: int) -> Episode:
    lengths, totals, stop = _shared

    def on_step(length: int, total_reward: float) -> None:
        lengths[index], totals[index] = length, total_reward
        if stop.value:
            raise KeyboardInterrupt

    return play(index, on_step)
