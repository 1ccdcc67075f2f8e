"""Transitions a second from a data set to tensors, first and again, beside Minari's iterator."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import gymnasium
import minari
import numpy as np
import torch
from minari.data_collector import EpisodeBuffer

from mbrl_bilevel.data.dataset_folder import datasets_in
from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.scripts.measurement import Measurement
from mbrl_bilevel.scripts.timing import median_ratio, take_turns

OBS, ACT = 17, 6
SHAPES = {"long": (100, 1_000), "short": (5_000, 20)}  # episodes, steps of each


def measure(rounds: int, device: torch.device, seed: int) -> Measurement:
    """Loads both shapes of 100,000 transitions by both loaders in turn; short episodes lead."""
    rng = np.random.default_rng(seed)
    metrics: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, datasets_in(folder), cache_in(folder):
        for shape, (episodes, steps) in SHAPES.items():
            create(f"bench/{shape}-v0", episodes, steps, rng)
            path = next(Path(folder).rglob(f"{shape}-v0/data/main_data.hdf5"))
            seconds = take_turns(
                {
                    "ours": partial(load_dataset, f"bench/{shape}-v0", cache=False),
                    "again": partial(load_again, f"bench/{shape}-v0"),
                    "peer": partial(iterate, f"bench/{shape}-v0"),
                    "limit": path.read_bytes,
                },
                min(rounds, 5),
            )
            metrics[shape] = {
                **{k: episodes * steps / median(v) / 1e6 for k, v in seconds.items()},
                "ratio": median_ratio(seconds["peer"], seconds["ours"]),
                "again_ratio": median_ratio(seconds["ours"], seconds["again"]),
                "share_of_limit": median_ratio(seconds["limit"], seconds["ours"]),
            }
    short, long = metrics["short"], metrics["long"]
    names = ("ours", "peer", "limit", "ratio", "share_of_limit")
    return Measurement(
        **{name: short[name] for name in names},
        peer_name="minari's iterate_episodes, 5,000 episodes of 20 steps",
        unit="million transitions/s",
        more={
            "loaded again from the cache, million transitions/s": short["again"],
            "times as fast as first": short["again_ratio"],
            "100 episodes of 1,000 steps, million transitions/s": long["ours"],
            "those loaded again, times as fast": long["again_ratio"],
            "minari on those": long["peer"],
            "ratio on those": long["ratio"],
        },
    )


@contextmanager
def cache_in(folder: str) -> Iterator[None]:
    """Keeps the user's own cache out of it."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


def load_again(dataset_id: str) -> None:
    """From the cache, once it is there."""
    rows = load_dataset(dataset_id).transitions
    rows.observation.sum()  # mapped memory is read when it is used


def create(dataset_id: str, episodes: int, steps: int, rng: np.random.Generator) -> None:
    """A Minari data set of random numbers."""
    buffers = [
        EpisodeBuffer(
            id=i,
            observations=rng.standard_normal((steps + 1, OBS)),
            actions=rng.uniform(-1, 1, (steps, ACT)).astype(np.float32),
            rewards=rng.standard_normal(steps),
            terminations=np.zeros(steps, bool),
            truncations=np.arange(steps) == steps - 1,
            infos=None,
        )
        for i in range(episodes)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (OBS,), np.float64),
            action_space=gymnasium.spaces.Box(-1, 1, (ACT,), np.float32),
        )


def iterate(dataset_id: str) -> None:
    """Every episode by Minari's own loader."""
    for _ in minari.load_dataset(dataset_id).iterate_episodes():
        pass
