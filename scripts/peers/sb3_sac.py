"""Updates of Stable-Baselines3's SAC."""

from collections.abc import Callable

import torch

from mbrl_bilevel.scripts.bench_sac import stable_baselines3, transitions
from mbrl_bilevel.scripts.peers.protocol import Spec, serve


def prepare(spec: Spec) -> Callable[[], object]:
    data = transitions(torch.Generator().manual_seed(spec["seed"]))
    found = stable_baselines3(data, torch.device("cpu"), spec["seed"])
    assert found is not None
    return found


if __name__ == "__main__":
    serve(prepare, "stable-baselines3", "torch")
