"""How the time of a gradient step and of a plan grows with each size."""

from collections.abc import Callable
from statistics import median

import torch

from mbrl_bilevel.envs.tasks import get_task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.planning.cem import CEM
from mbrl_bilevel.scripts.measurement import Measurement
from mbrl_bilevel.scripts.timing import take_turns
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.trainer import Trainer

OBS, ACT, BATCH, STEPS = 17, 6, 256, 5  # HalfCheetah's sizes; steps of a round
FIT = {"members": 5, "units": 200, "rows": 10_000}
FITS = {
    "members": (1, 2, 5, 10, 20),
    "units": (64, 128, 256, 512, 1_024),
    "rows": (10_000, 100_000, 1_000_000, 10_000_000),
}
PLAN = {"horizon": 30, "samples": 128}
PLANS = {"horizon": (5, 15, 30, 60), "samples": (32, 128, 512, 2_048)}


def measure(rounds: int, device: torch.device, seed: int) -> Measurement:
    """One size at a time: three layers and 256 rows a member; CEM of one iteration, 5 x 4 x 200."""
    generator = torch.Generator(device).manual_seed(seed)
    more = {}
    for name, sizes in FITS.items():
        for size in sizes:
            spent = take_turns({"fit": _fit(generator, **(FIT | {name: size}))}, rounds)["fit"]
            more[f"fit, {size:,} {name}, ms"] = 1e3 * median(spent) / STEPS
    for name, sizes in PLANS.items():
        for size in sizes:
            spent = take_turns({"plan": _plan(generator, **(PLAN | {name: size}))}, rounds)["plan"]
            more[f"plan, {name} {size:,}, ms"] = 1e3 * median(spent)
    return Measurement(
        ours=more[f"fit, {FIT['members']} members, ms"],
        unit=f"ms a gradient step of {FIT['members']} members of 3 x {FIT['units']}",
        more=more,
    )


def _fit(generator: torch.Generator, members: int, units: int, rows: int) -> Callable[[], None]:
    device = generator.device
    data = Samples(
        torch.randn(rows, OBS + ACT, generator=generator, device=device),
        torch.randn(rows, OBS, generator=generator, device=device),
    )
    held_out = Samples(data.x[:1_000], data.y[:1_000])
    with torch.device(device):
        network = GaussianEnsemble(
            OBS + ACT, OBS, members=members, hidden=(units,) * 3, generator=generator
        )
    settings = FitSettings(batch_size=BATCH)
    training = Trainer(network, NLL(), data, held_out, generator, settings)

    def run() -> None:
        for _ in range(STEPS):
            training.train_step()

    return run


def _plan(generator: torch.Generator, horizon: int, samples: int) -> Callable[[], object]:
    device = generator.device
    with torch.device(device):
        settings = ModelSettings(members=5, hidden=(200,) * 4)
        model = DynamicsModel(OBS, ACT, settings, generator=generator)
    low = -torch.ones(ACT, device=device)
    search = CEM(low, -low, horizon=horizon, samples=samples, iterations=1, elites=10)
    task, futures = get_task("HalfCheetah-v5"), Propagation(model)
    obs = torch.randn(1, OBS, generator=generator, device=device)
    return lambda: search(futures, task, obs, generator)
