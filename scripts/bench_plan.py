"""Milliseconds of one planning step, beside bare matrix products of the same shapes."""

from collections.abc import Callable
from statistics import median

import torch

from mbrl_bilevel.envs.tasks import get_task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.planning.icem import ICEM
from mbrl_bilevel.scripts.measurement import Measurement
from mbrl_bilevel.scripts.timing import layer_products, median_ratio, take_turns

MEMBERS, HIDDEN, OBS, ACT = 5, (200, 200, 200, 200), 17, 6
SAMPLES, HORIZON, ITERATIONS = 128, 30, 3


def measure(rounds: int, device: torch.device, seed: int) -> Measurement:
    """HalfCheetah-v5, 5 members of 4 x 200, 128 samples x 30 steps x 3 iterations."""
    plan = _planning(device, seed)
    sizes = [OBS + ACT, *HIDDEN, 2 * OBS]
    products, operations = layer_products(MEMBERS, SAMPLES, sizes, device, backward=False)

    def limit() -> None:
        for _ in range(HORIZON * ITERATIONS):
            products()

    seconds = take_turns({"ours": plan, "limit": limit}, rounds)
    total = operations * HORIZON * ITERATIONS
    ours, bare = median(seconds["ours"]), median(seconds["limit"])
    return Measurement(
        ours=total / ours / 1e9,
        limit=total / bare / 1e9,
        share_of_limit=median_ratio(seconds["limit"], seconds["ours"]),
        unit="Gflop/s",
        more={
            "milliseconds per planning step": 1e3 * ours,
            "million model evaluations/s": MEMBERS * SAMPLES * HORIZON * ITERATIONS / ours / 1e6,
        },
    )


def _planning(device: torch.device, seed: int) -> Callable[[], object]:
    generator = torch.Generator(device).manual_seed(seed)
    with torch.device(device):
        model = DynamicsModel(
            OBS, ACT, ModelSettings(members=MEMBERS, hidden=HIDDEN), generator=generator
        )
    planner = ICEM(
        -torch.ones(ACT, device=device),
        torch.ones(ACT, device=device),
        horizon=HORIZON,
        samples=SAMPLES,
        iterations=ITERATIONS,
        population_decay=1.0,
    )
    task, futures = get_task("HalfCheetah-v5"), Propagation(model)
    obs = torch.randn(1, OBS, generator=generator, device=device)
    return lambda: planner(futures, task, obs, generator)
