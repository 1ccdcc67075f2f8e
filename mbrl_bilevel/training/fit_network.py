"""A fit of a network to standardised rows: every objective and every ensemble is trained here."""

import time
from collections.abc import Sequence

import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.training import tensorboard
from mbrl_bilevel.training.checkpointer import Checkpointer
from mbrl_bilevel.training.early_stopping import EarlyStopping
from mbrl_bilevel.training.interruption import Interruption
from mbrl_bilevel.training.loop import Callback, train
from mbrl_bilevel.training.metrics_log import MetricsLog
from mbrl_bilevel.training.objective import Objective
from mbrl_bilevel.training.progress import Progress
from mbrl_bilevel.training.rollback import InMemory, Rollback
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.trainer import FitResult, Trainer

SHOWN = {"held-out nll": "held_out/nll", "held-out mse": "held_out/mse"}


def fit_network(
    network: GaussianEnsemble,
    objective: Objective,
    train_samples: Samples,
    held_out: Samples,
    *,
    generator: torch.Generator,
    settings: FitSettings = FitSettings(),
    names: Sequence[str] | None = None,
    run: RunFolder | None = None,
    checkpoint_seconds: float = 20.0,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Trains every member by AdamW and leaves in `network` each member's best held-out parameters.

    One step: a batch of rows per member, the objective's loss per member, gradients clipped per
    member, AdamW. A member whose loss or gradient is not finite skips the step, which is counted.
    Members share nothing but the clock: an ensemble is the same as members trained one by one. The
    objective's `rows` name the training rows that each member may see; where it has none, the
    settings' resampling decides. `generator` lives on the data's device and decides everything
    random.

    Args:
        names: of the targets, for metrics; default: their numbers.
        run: where metrics and checkpoints go; one that is resumed continues from its checkpoint,
            and ends bit for bit as if it had never been interrupted. In a run SIGINT or SIGTERM
            finishes the step, saves and raises `Interrupted`.
        checkpoint_seconds: between two checkpoints, which may stand between two evaluations; 0: at
            every evaluation.
        callbacks: act after each step, before it is logged and saved.

    Raises:
        InputError: empty data, or an ensemble that does not fit the data.
        TrainingDiverged: found at an evaluation, for the second time: the first time the fit goes
            on from the last good state at a tenth of the learning rate, with a UserWarning. The
            run's last checkpoint is from before it.
        Interrupted: by SIGINT or SIGTERM, where there is a run.
        OSError: the run's folder cannot be written.
    """
    _check(network, train_samples, held_out)
    trainer = Trainer(network, objective, train_samples, held_out, generator, settings, names=names)
    if run is not None and run.resumed:
        trainer.load(run.path)
    began = time.monotonic()
    train(
        trainer,
        steps=settings.steps,
        metrics_every=settings.evaluation_interval(len(held_out.x)),
        callbacks=_callbacks(
            trainer, settings, run, checkpoint_seconds, callbacks,
            Progress(objective.name, shown=SHOWN, disable=not progress),
        ),
    )  # fmt: skip
    return trainer.finish(time.monotonic() - began, stopped_early=trainer.step < settings.steps)


def _callbacks(
    trainer: Trainer,
    settings: FitSettings,
    run: RunFolder | None,
    checkpoint_seconds: float,
    given: Sequence[Callback],
    progress: Progress,
) -> list[Callback]:
    """In the order in which they act after a step."""
    stopping = []
    if settings.patience is not None:
        stopping = [EarlyStopping(trainer.paired or trainer.best, settings.patience)]
    if run is None:  # there is nothing to save, and signals are left to the caller
        return [progress, Rollback(InMemory(trainer), None), *given, *stopping]
    interruption = Interruption()
    checkpointer = Checkpointer(run, checkpoint_seconds, interruption)
    return [
        interruption,
        progress,
        Rollback(InMemory(trainer), checkpointer),
        *given,
        MetricsLog(run, "train/steps_per_second", tensorboard.MODEL),
        *stopping,
        checkpointer,
    ]


def _check(network: GaussianEnsemble, train: Samples, held_out: Samples) -> None:
    for part, data in (("training", train), ("held-out", held_out)):
        if len(data.x) == 0:
            raise InputError(f"the {part} part is empty: collect more episodes")
        if data.x.shape[1] != network.inputs or data.y.shape[1] != network.outputs:
            raise InputError(
                f"the {part} part has {data.x.shape[1]} inputs and {data.y.shape[1]} targets, the "
                f"network {network.inputs} and {network.outputs}: build it for this data"
            )
