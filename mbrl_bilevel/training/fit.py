"""The one fit loop: every objective and every network ensemble is trained here."""

import math
import time
from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.training.batches import Resampling
from mbrl_bilevel.training.checkpointer import Checkpointer
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.interruption import Interruption
from mbrl_bilevel.training.objective import Objective
from mbrl_bilevel.training.rollback import Rollback
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.trainer import FitResult, Samples, Schedule, Trainer


def fit(
    network: GaussianEnsemble,
    objective: Objective,
    train: Samples,
    held_out: Samples,
    *,
    generator: torch.Generator,
    steps: int = 20_000,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.0,
    resampling: Resampling = "shared",
    schedule: Schedule = "cosine",
    clip_norm: float = 1000.0,
    patience: int | None = 30,
    evaluate_every: int | None = None,
    names: Sequence[str] | None = None,
    run: RunFolder | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 20.0,
    progress: bool = True,
    on_evaluation: Callable[[int], None] | None = None,
) -> FitResult:
    """Trains every member by Adam and leaves in `network` each member's best held-out parameters.

    One step: a batch of rows per member, the objective's loss per member, gradients clipped per
    member, Adam. A member whose loss or gradient is not finite sits the step out, which is counted.
    Members share nothing but the clock: an ensemble is the same as members trained
    one by one. The objective's `rows` name the training rows that each member may see; where it
    has none, `resampling` decides. `patience` counts evaluations without progress of any member;
    `generator` lives on the data's device and decides everything random. A run is checkpointed at
    the evaluation after `checkpoint_seconds`, or before it where evaluations are further apart (0:
    at each evaluation).
    In a run Ctrl-C or SIGTERM finishes the step, saves and raises `Interrupted`; resumed from
    there, or from any checkpoint, the run ends bit for bit as if nothing had been.

    Raises:
        InputError: empty data, steps or patience below 1, a learning rate, norm or weight decay
            outside its range, or an ensemble that does not fit the data.
        TrainingDiverged: found at an evaluation, for the second time: the first time the fit goes
            on from the last good state at a tenth of the learning rate, with a UserWarning. The
            run's last checkpoint is from before it.
        Interrupted: by SIGINT or SIGTERM, where there is a run.
        OSError: the run's folder cannot be written.
    """
    _check(network, train, held_out, steps)
    if not 0 <= weight_decay * learning_rate < 1:  # the share of a weight that a step takes away
        raise InputError(
            f"a weight decay of {weight_decay} at a learning rate of {learning_rate}: choose one "
            "of at least 0 whose product with the learning rate is below 1"
        )
    if patience is not None and patience < 1:
        raise InputError(f"a patience of {patience} evaluations: choose at least 1, or None")
    for name, value in (("learning rate", learning_rate), ("largest gradient norm", clip_norm)):
        if not value > 0:
            raise InputError(f"a {name} of {value}: choose a number above 0")
    if math.isinf(learning_rate):
        raise InputError(f"a learning rate of {learning_rate}: choose a finite number")
    trainer = Trainer(
        network,
        objective,
        train,
        held_out,
        generator,
        batch_size=batch_size,
        resampling=resampling,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        schedule=schedule,
        steps=steps,
        clip_norm=clip_norm,
    )
    if evaluate_every is None:
        evaluate_every = max(200, math.ceil(4 * len(held_out.x) / batch_size))
    names = names or [str(i) for i in range(train.y.shape[1])]
    if run is not None:
        if resume:
            trainer.load(run.path)
        run.continue_from(trainer.step)
    checkpointer, rollback = Checkpointer(trainer, run, checkpoint_seconds), Rollback(trainer)
    began = time.monotonic()
    stopped = False
    with (
        # Without a run there is nothing to save, and signals are left to the caller.
        Interruption(listening=run is not None) as interruption,
        tqdm(
            total=steps,
            initial=trainer.step,
            unit="step",
            desc=objective.name,
            disable=not progress,
        ) as bar,
    ):
        while trainer.step < steps and not (stopped := trainer.stale(patience)):
            until = min(steps, trainer.step - trainer.step % evaluate_every + evaluate_every)
            started, first = time.monotonic(), trainer.step
            while trainer.step < until and interruption.signal is None:
                trainer.train_step()
                bar.update()
                if checkpoint_seconds and checkpointer.due:
                    break
            seconds = time.monotonic() - started
            try:
                if trainer.step == until:
                    metrics = trainer.evaluate(names)
                    rollback.remember()
                    nll, mse = metrics["held_out/nll"], metrics["held_out/mse"]
                    bar.set_postfix({"held-out nll": f"{nll:.4f}", "held-out mse": f"{mse:.4f}"})
                    if on_evaluation is not None:
                        on_evaluation(until)
                    if run is not None:
                        rate = (until - first) / seconds
                        run.log(until, metrics | {"train/steps_per_second": rate})
                if interruption.signal is not None:
                    checkpointer.stop(interruption)
                if checkpointer.due or trainer.step == steps or trainer.stale(patience):
                    checkpointer.save()
            except TrainingDiverged as error:
                rollback.roll_back(error, checkpointer.kept())
                bar.update(trainer.step - bar.n)
    return trainer.finish(time.monotonic() - began, stopped)


def _check(network: GaussianEnsemble, train: Samples, held_out: Samples, steps: int) -> None:
    if steps < 1:
        raise InputError(f"{steps} training steps: choose at least 1")
    for part, data in (("training", train), ("held-out", held_out)):
        if len(data.x) == 0:
            raise InputError(f"the {part} part is empty: collect more episodes")
        if data.x.shape[1] != network.inputs or data.y.shape[1] != network.outputs:
            raise InputError(
                f"the {part} part has {data.x.shape[1]} inputs and {data.y.shape[1]} targets, the "
                f"network {network.inputs} and {network.outputs}: build it for this data"
            )
