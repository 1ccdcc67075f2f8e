"""What checkpoints cost a training, beside writing as many bytes."""

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.scripts.bench_fit import BATCH, HIDDEN, INPUTS, MEMBERS, OUTPUTS
from mbrl_bilevel.scripts.measurement import Measurement
from mbrl_bilevel.scripts.timing import take_turns
from mbrl_bilevel.training.checkpoint import FILE
from mbrl_bilevel.training.checkpointer import Checkpointer
from mbrl_bilevel.training.interruption import Interruption
from mbrl_bilevel.training.loop import Training
from mbrl_bilevel.training.rollback import InMemory
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.trainer import Trainer

SECONDS = 20.0  # between two checkpoints, the default of train-model
EVERY = 200  # steps between two evaluations, whose state stays in memory


def measure(rounds: int, device: torch.device, seed: int) -> Measurement:
    """Share of the training time: a checkpoint every 20 s, a copy in memory per evaluation."""
    trainer = _trainer(device, seed)
    step = _seconds_per_step(trainer)
    with tempfile.TemporaryDirectory(dir=".") as folder, RunFolder(Path(folder) / "run", {}) as run:
        save = _saving(trainer, run)
        save()
        raw = (run.path / FILE).read_bytes()
        candidates: dict[str, Callable[[], object]] = {
            "save": save,
            "limit": partial(_write_and_sync, run.path / "bare", raw),
            "remember": InMemory(trainer).remember,
        }
        seconds = {k: median(v) for k, v in take_turns(candidates, max(rounds, 7)).items()}
    share = 100 * (seconds["save"] / SECONDS + seconds["remember"] / (EVERY * step))
    limit = 100 * seconds["limit"] / SECONDS
    return Measurement(
        ours=share,
        limit=limit,
        share_of_limit=limit / share,
        unit=f"% of the training time (a checkpoint every {SECONDS:.0f} s)",
        more={
            "milliseconds per checkpoint": 1e3 * seconds["save"],
            "milliseconds to write and sync as many bytes": 1e3 * seconds["limit"],
            "milliseconds per copy in memory": 1e3 * seconds["remember"],
            "milliseconds per training step": 1e3 * step,
            "MiB per checkpoint": len(raw) / 2**20,
        },
    )


def _trainer(device: torch.device, seed: int) -> Trainer:
    generator = torch.Generator(device).manual_seed(seed)
    data = Samples(
        torch.randn(20_000, INPUTS, generator=generator, device=device),
        torch.randn(20_000, OUTPUTS, generator=generator, device=device),
    )
    with torch.device(device):
        network = GaussianEnsemble(
            INPUTS, OUTPUTS, members=MEMBERS, hidden=HIDDEN, generator=generator
        )
    return Trainer(network, NLL(), data, data, generator, FitSettings(batch_size=BATCH))


def _seconds_per_step(trainer: Trainer) -> float:
    trainer.train_step()
    started = time.perf_counter()
    for _ in range(20):
        trainer.train_step()
    trainer.check_finite()  # waits for the device
    return (time.perf_counter() - started) / 20


def _saving(trainer: Trainer, run: RunFolder) -> Callable[[], None]:
    """What a training does at a checkpoint."""
    run.log(1, {})
    training = Training(trainer, 1, 1, callbacks=())
    checkpointer = Checkpointer(run, SECONDS, Interruption())

    def save() -> None:
        run.sync()
        checkpointer.save(training)

    return save


def _write_and_sync(path: Path, raw: bytes) -> None:
    with open(path, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
