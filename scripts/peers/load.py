"""Loading a data set, first and again, beside Minari's own loader."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from mbrl_bilevel.data.dataset_folder import datasets_in
from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.scripts.bench_load import SHAPES, cache_in, create, load_again
from mbrl_bilevel.scripts.peers.comparison import Comparison


def comparisons(seed: int) -> Iterator[Comparison]:
    """Data sets of 100,000 transitions; Minari keeps nothing from one load to the next."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder, datasets_in(folder), cache_in(folder):
        for shape, (episodes, steps) in SHAPES.items():
            name = f"bench/{shape}-v0"
            create(name, episodes, steps, rng)
            path = next(Path(folder).rglob(f"{shape}-v0/data/main_data.hdf5"))
            loads: dict[str, Callable[[], object]] = {
                "first": partial(load_dataset, name, cache=False),
                "again": partial(load_again, name),
            }
            for which, ours in loads.items():
                yield Comparison(
                    name=f"load {which}",
                    peer="minari_load",
                    packages="minari",
                    spec={"dataset": name},
                    ours=ours,
                    limit=path.read_bytes,
                    per=f"load of {episodes:,} episodes of {steps:,} steps",
                )
