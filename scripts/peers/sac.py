"""Updates of soft actor-critic, beside Stable-Baselines3's."""

from collections.abc import Iterator

import torch

from mbrl_bilevel.scripts import bench_sac
from mbrl_bilevel.scripts.peers.comparison import Comparison, precisions_here


def comparisons(seed: int) -> Iterator[Comparison]:
    """Batch, critics, actor, temperature and targets, as `bench sac` times them."""
    data = bench_sac.transitions(torch.Generator().manual_seed(seed))
    for precision in precisions_here():
        yield Comparison(
            name="sac",
            peer="sb3_sac",
            packages="stable-baselines3",
            spec={"seed": seed},
            ours=bench_sac.updates(data, torch.Generator().manual_seed(seed)),
            limit=bench_sac.products_of_updates(torch.device("cpu")),
            precision=precision,
            per=f"update, {bench_sac.BATCH} rows, two hidden layers of {bench_sac.HIDDEN}",
            count=bench_sac.UPDATES,
        )
