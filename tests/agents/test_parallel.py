import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mbrl_bilevel.agents.episode import Episode
from mbrl_bilevel.agents.parallel import InTurn, WorkerDied, episode_seeds, play_episodes
from mbrl_bilevel.errors import InputError


@dataclass(frozen=True)
class Toy:
    """An episode of `steps` steps, all rewarded by its seed; `fatal` is how episode 1 ends."""

    steps: int = 3
    fatal: str = ""

    def __call__(self, index: int, on_step: Callable[[int, float], None]) -> Episode:
        if index == 1 and self.fatal == "killed":
            os._exit(9)
        if index == 1 and self.fatal == "bad input":
            raise InputError("the thing is 3")
        seed = float(episode_seeds(0, index)[0])
        for step in range(self.steps):
            on_step(step + 1, (step + 1) * seed)
            time.sleep(0.01)
        return Episode(np.full(self.steps, seed), False, 0.0, 0.0)


def test_seeds_belong_to_the_episode() -> None:
    seeds = [episode_seeds(7, index) for index in range(100)]
    assert len({seed for pair in seeds for seed in pair}) == 200
    assert all(0 <= seed < 2**31 for pair in seeds for seed in pair)
    assert episode_seeds(7, 3) == seeds[3]
    assert episode_seeds(8, 3) != seeds[3]


def test_agents_take_turns() -> None:
    """Three agents of 1, 2 and 3 steps: every one plays its episode i from the seed of i."""
    turns = InTurn((Toy(1), Toy(2), Toy(3)))
    assert [turns.place(index) for index in (0, 2, 3, 7)] == [(0, 0), (0, 2), (1, 0), (2, 1)]
    for index in range(6):
        episode, agent = turns.place(index)
        rewards = turns(index, lambda *_: None).rewards
        assert rewards.tolist() == [float(episode_seeds(0, episode)[0])] * (agent + 1)


@pytest.mark.slow
def test_every_episode_comes_back_once_and_progress_is_told() -> None:
    ticks: list[tuple[Sequence[float], ...]] = []
    found = dict(play_episodes(Toy(), 4, workers=2, on_tick=lambda *now: ticks.append(now)))
    expected = [3 * float(episode_seeds(0, index)[0]) for index in range(4)]
    assert [found[index].total_reward for index in range(4)] == expected
    assert ticks[-1] == ([3] * 4, expected)


def failing(fatal: str, error: type[Exception], words: str) -> None:
    started = time.perf_counter()
    with pytest.raises(error, match=words):
        list(play_episodes(Toy(fatal=fatal), 2, workers=1))
    assert time.perf_counter() - started < 60


def test_a_worker_that_dies_is_an_error_and_no_hang() -> None:
    failing("killed", WorkerDied, "process died with 1 of 2 episodes unfinished")


@pytest.mark.slow
def test_bad_input_in_a_worker_comes_through() -> None:
    failing("bad input", InputError, "the thing is 3")


@pytest.mark.slow
def test_leaving_early_stops_the_episodes() -> None:
    started = time.perf_counter()

    def interrupt(lengths: Sequence[int], totals: Sequence[float]) -> None:
        if sum(lengths):
            raise KeyboardInterrupt

    with (
        closing(play_episodes(Toy(steps=10_000), 1, workers=1, on_tick=interrupt)) as episodes,
        pytest.raises(KeyboardInterrupt),
    ):
        list(episodes)
    assert time.perf_counter() - started < 60


WAITS = """
import multiprocessing, sys, time
from concurrent.futures import ProcessPoolExecutor
from mbrl_bilevel.agents.parallel import end_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context, initializer=end_with_parent)
    pool.submit(time.sleep, 0).result()
    print(*pool._processes, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_worker_ends_with_its_parent_even_by_kill_9(tmp_path):
    script = tmp_path / "waits.py"
    script.write_text(WAITS)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = Path("/proc", parent.stdout.readline().strip())
        assert worker.is_dir()
        parent.kill()
    end = time.monotonic() + 30
    while worker.is_dir() and time.monotonic() < end:
        time.sleep(0.05)
    assert not worker.is_dir()
