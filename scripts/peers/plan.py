"""A planning step, beside mbrl-lib's CEM and iCEM and pytorch-mppi's MPPI."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from mbrl_bilevel.envs.tasks import get_task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.planning.cem import CEM
from mbrl_bilevel.planning.icem import ICEM
from mbrl_bilevel.planning.mppi import MPPI
from mbrl_bilevel.scripts.peers.comparison import Comparison, precisions_here
from mbrl_bilevel.scripts.peers.sizes import ACT, OBS, Network
from mbrl_bilevel.scripts.timing import layer_products

NETWORK = Network()
SEARCH = {"horizon": 30, "samples": 128, "iterations": 3}
ELITES = 10
PLANNERS: dict[str, tuple[type[Any], dict[str, float], str, str]] = {
    "cem": (CEM, {"elites": ELITES}, "mbrl_plan", "mbrl"),
    "icem": (ICEM, {"elites": ELITES, "population_decay": 1.0}, "mbrl_plan", "mbrl"),
    "mppi": (MPPI, {"beta": 0.0}, "mppi_plan", "pytorch-mppi"),
}


def comparisons(seed: int) -> Iterator[Comparison]:
    """Each by a particle of every member (TS-infinity), all iterations, from the last plan."""
    for name, (planner, more, module, packages) in PLANNERS.items():
        spec = {"network": asdict(NETWORK), "planner": name, "elites": ELITES, **SEARCH}
        for precision in precisions_here():
            yield Comparison(
                name=f"plan {name}",
                peer=module,
                packages=packages,
                spec={**spec, "particles": NETWORK.members, "seed": seed},
                ours=_planning(planner, more, seed),
                limit=_limit(),
                precision=precision,
                per=f"plan of {SEARCH['samples']} x {SEARCH['horizon']} x {SEARCH['iterations']}, "
                f"{NETWORK}",
            )


def _planning(planner: type[Any], more: dict[str, float], seed: int) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(seed)
    settings = ModelSettings(members=NETWORK.members, hidden=NETWORK.hidden)
    model = DynamicsModel(OBS, ACT, settings, generator=generator)
    search = planner(-torch.ones(ACT), torch.ones(ACT), **SEARCH, **more)
    task, futures = get_task("HalfCheetah-v5"), Propagation(model)
    obs = torch.randn(1, OBS, generator=generator)
    return lambda: search(futures, task, obs, generator)


def _limit() -> Callable[[], None]:
    products, _ = layer_products(
        NETWORK.members, SEARCH["samples"], NETWORK.sizes, torch.device("cpu"), backward=False
    )

    def run() -> None:
        for _ in range(SEARCH["horizon"] * SEARCH["iterations"]):
            products()

    return run
