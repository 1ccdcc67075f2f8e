"""Memory of a training of 1,000,000 steps, which must not grow once it has warmed up."""

import resource
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.scripts.measurement import Measurement
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.loop import Callback, Training
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings

STEPS, EVERY = 1_000_000, 200  # evaluations as often as a real run has them
WARM = 0.05  # of the steps
POINTS = 100  # of the curve
PAGE = resource.getpagesize()


class MemoryCurve(Callback):
    """Resident memory in MiB by step, in `curve`."""

    def __init__(self, curve: dict[int, float]) -> None:
        self.curve = curve

    def after_step(self, training: Training) -> None:
        if training.step % (STEPS // POINTS) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.curve[training.step] = pages * PAGE / 2**20


def measure(rounds: int, device: torch.device, seed: int) -> Measurement:
    """Resident memory after warm-up and at the end: a tiny network, all that a run writes."""
    if not Path("/proc/self/statm").is_file():
        raise InputError(f"bench memory reads /proc, which {sys.platform} has not: run it on Linux")
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(500, 2, generator=generator, device=device)
    data = Samples(x, x + 0.1 * torch.randn(500, 2, generator=generator, device=device))
    curve: dict[int, float] = {}

    with torch.device(device):
        network = GaussianEnsemble(2, 2, members=2, hidden=(8,), generator=generator)
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder) / "run", {}) as run:
        fit_network(
            network,
            NLL(),
            data,
            data,
            generator=generator,
            settings=FitSettings(steps=STEPS, batch_size=16, patience=None, evaluate_every=EVERY),
            run=run,
            callbacks=[MemoryCurve(curve)],
        )
        written = sum(path.stat().st_size for path in run.path.iterdir())
    warm = {step: size for step, size in curve.items() if step >= WARM * STEPS}
    sizes = list(warm.values())
    return Measurement(
        ours=sizes[-1] - sizes[0],
        unit=f"MiB grown from step {next(iter(warm)):,} to {STEPS:,}",
        more={
            "MiB after warm-up": sizes[0],
            "MiB at the most": max(sizes),
            "largest step between two points, MiB": max(abs(b - a) for a, b in pairwise(sizes)),
            "MiB written to the run's folder": written / 2**20,
            **{f"MiB at step {step:,}": size for step, size in curve.items()},
        },
    )
