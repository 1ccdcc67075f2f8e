"""Milliseconds of one planning step, beside bare matrix products of the same shapes."""

from statistics import median
from typing import Any

import torch

from mbrl_bilevel.envs.tasks import get_task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.planning.icem import ICEM
from mbrl_bilevel.scripts.timing import layer_products, median_ratio, take_turns

MEMBERS, HIDDEN, OBS, ACT = 5, (200, 200, 200, 200), 17, 6
SAMPLES, HORIZON, ITERATIONS = 128, 30, 3


def measure(rounds: int, device: torch.device, seed: int) -> dict[str, Any]:
    """HalfCheetah-v5, 5 members of 4 x 200, 128 samples x 30 steps x 3 iterations."""
    generator = torch.Generator(device).manual_seed(seed)
    with torch.device(device):
        model = DynamicsModel(
            OBS, ACT, ModelSettings(members=MEMBERS, hidden=HIDDEN), generator=generator
        )
    futures = Propagation(model)
    planner = ICEM(
        -torch.ones(ACT, device=device),
        torch.ones(ACT, device=device),
        horizon=HORIZON,
        samples=SAMPLES,
        iterations=ITERATIONS,
        population_decay=1.0,
    )
    task = get_task("HalfCheetah-v5")
    obs = torch.randn(1, OBS, generator=generator, device=device)
    sizes = [OBS + ACT, *HIDDEN, 2 * OBS]
    products, operations = layer_products(MEMBERS, SAMPLES, sizes, device, backward=False)

    def limit() -> None:
        for _ in range(HORIZON * ITERATIONS):
            products()

    seconds = take_turns(
        {"ours": lambda: planner(futures, task, obs, generator), "limit": limit}, rounds
    )
    total = operations * HORIZON * ITERATIONS
    ours, bare = median(seconds["ours"]), median(seconds["limit"])
    return {
        "ours": total / ours / 1e9,
        "peer": None,
        "peer_name": None,
        "ratio": None,
        "limit": total / bare / 1e9,
        "share_of_limit": median_ratio(seconds["limit"], seconds["ours"]),
        "unit": "Gflop/s",
        "more": {
            "milliseconds per planning step": 1e3 * ours,
            "million model evaluations/s": MEMBERS * SAMPLES * HORIZON * ITERATIONS / ours / 1e6,
        },
    }
