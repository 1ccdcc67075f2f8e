"""What checkpoints cost a training, beside writing as many bytes."""

import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.scripts.bench_fit import BATCH, HIDDEN, INPUTS, MEMBERS, OUTPUTS
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


def measure(rounds: int, device: torch.device, seed: int) -> dict[str, Any]:
    """Share of the training time: a checkpoint every 20 s, a copy in memory per evaluation."""
    generator = torch.Generator(device).manual_seed(seed)
    data = Samples(
        torch.randn(20_000, INPUTS, generator=generator, device=device),
        torch.randn(20_000, OUTPUTS, generator=generator, device=device),
    )
    with torch.device(device):
        network = GaussianEnsemble(
            INPUTS, OUTPUTS, members=MEMBERS, hidden=HIDDEN, generator=generator
        )
    trainer = Trainer(network, NLL(), data, data, generator, FitSettings(batch_size=BATCH))
    trainer.train_step()
    started = time.perf_counter()
    for _ in range(20):
        trainer.train_step()
    trainer.check_finite()  # waits for the device
    step = (time.perf_counter() - started) / 20
    with tempfile.TemporaryDirectory(dir=".") as folder, RunFolder(Path(folder) / "run", {}) as run:
        run.log(1, {})
        training = Training(trainer, 1, 1, callbacks=())
        checkpointer = Checkpointer(run, SECONDS, Interruption())

        def save() -> None:
            run.sync()
            checkpointer.save(training)

        save()
        raw = (run.path / FILE).read_bytes()

        def bare() -> None:
            with open(run.path / "bare", "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())

        candidates = {
            "save": save,
            "limit": bare,
            "remember": InMemory(trainer).remember,
        }
        seconds = {k: median(v) for k, v in take_turns(candidates, max(rounds, 7)).items()}
    share = 100 * (seconds["save"] / SECONDS + seconds["remember"] / (EVERY * step))
    limit = 100 * seconds["limit"] / SECONDS
    return {
        "ours": share,
        "peer": None,
        "ratio": None,
        "limit": limit,
        "share_of_limit": limit / share,
        "unit": f"% of the training time (a checkpoint every {SECONDS:.0f} s)",
        "peer_name": None,
        "more": {
            "milliseconds per checkpoint": 1e3 * seconds["save"],
            "milliseconds to write and sync as many bytes": 1e3 * seconds["limit"],
            "milliseconds per copy in memory": 1e3 * seconds["remember"],
            "milliseconds per training step": 1e3 * step,
            "MiB per checkpoint": len(raw) / 2**20,
        },
    }
