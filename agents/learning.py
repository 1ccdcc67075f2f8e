"""The one loop that trains every agent: steps, evaluations, metrics, checkpoints, signals."""

import time
import warnings
from pathlib import Path
from typing import Protocol, runtime_checkable

from numpy import ndarray
from tqdm import tqdm

from mbrl_bilevel.agents.policy_evaluation import PolicyEvaluation
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import one_line
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.interruption import Interruption
from mbrl_bilevel.training.keeper import Keeper
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.way_back import SLOWER


@runtime_checkable
class Learner(Protocol):
    """An agent that learns step by step.

    `steady` says whether `save` leads back to this very point; `figures` averages since its last
    call, and raises TrainingDiverged for an agent that is lost; `policy` is what is evaluated, or
    None where playing it would cost as much as the training. `slowed` says whether `slow_down` has
    been called in this run, or that there is nothing to slow.
    """

    @property
    def step(self) -> int: ...

    @property
    def steady(self) -> bool: ...

    @property
    def slowed(self) -> bool: ...

    def slow_down(self, factor: float) -> None: ...

    def train_step(self) -> None: ...

    def figures(self) -> dict[str, float]: ...

    def policy(self) -> dict[str, ndarray] | None: ...

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


def learn(
    learner: Learner,
    run: RunFolder,
    evaluation: PolicyEvaluation,
    *,
    steps: int,
    log_every: int,
    evaluate_every: int,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
) -> dict[str, float]:
    """Trains for `steps` steps and returns the figures of the last evaluation.

    An evaluation plays beside the training and is written down at the next `log_every` steps, or
    before the next checkpoint: metrics.jsonl is the same however often a run is interrupted, but
    for `time/...` figures.

    Raises:
        InputError: a checkpoint that is damaged, or of another run.
        TrainingDiverged: for the second time, or before the first checkpoint; with the checkpoint
            that is kept in the sentence. The first time training goes on from the last checkpoint
            at a tenth of the learning rate, with a UserWarning.
        WorkerDied: the process that evaluates was killed.
        Interrupted: by SIGINT or SIGTERM, after a checkpoint.
    """
    if resume:
        _load(learner, run.path)
    run.continue_from(learner.step)
    keeper = Keeper(learner, run, checkpoint_seconds)
    last: dict[str, float] = {}

    def collect() -> None:
        found = evaluation.collect()
        if found is not None:
            last.update(found[1])
            run.log(*found)
            bar.set_postfix_str(f"return {found[1]['evaluation/return']:.1f} at step {found[0]}")

    with Interruption() as interruption, evaluation, _bar(steps, learner.step) as bar:
        began, first = time.monotonic(), learner.step
        while learner.step < steps:
            try:
                learner.train_step()
                bar.update()
                if _due(learner.step, log_every, steps):
                    collect()
                    rate = (learner.step - first) / (time.monotonic() - began)
                    run.log(learner.step, learner.figures() | {"time/steps_per_second": rate})
                    began, first = time.monotonic(), learner.step
                policy = learner.policy() if _due(learner.step, evaluate_every, steps) else None
                if policy is not None:
                    collect()
                    evaluation.start(learner.step, policy)
                ended = learner.step == steps  # nothing comes after, that a state must lead to
                if interruption.signal is not None and not (learner.steady or ended):
                    bar.set_postfix_str("stops at the next fit; Ctrl-C again stops at once")
                elif interruption.signal is not None:
                    collect()
                    keeper.stop(interruption)
                elif ended or (keeper.due and learner.steady):
                    collect()
                    keeper.save()
            except TrainingDiverged as error:
                if learner.slowed or keeper.saved is None:
                    raise TrainingDiverged(f"{error}{keeper.kept()}") from None
                evaluation.collect()  # of a policy that is given up
                _go_back(learner, run, error)
                bar.update(learner.step - bar.n)
                began, first = time.monotonic(), learner.step
        if not last and (policy := learner.policy()) is not None:  # a finished run, resumed
            evaluation.start(learner.step, policy)
            last.update((evaluation.collect() or (0, {}))[1])
    return last


def _go_back(learner: Learner, run: RunFolder, error: TrainingDiverged) -> None:
    learner.load(run.path)
    learner.slow_down(SLOWER)
    run.continue_from(learner.step)
    warnings.warn(
        f"{error}; going on from step {learner.step} at {SLOWER:g} of the learning rate",
        stacklevel=3,
    )


def _load(learner: Learner, folder: Path) -> None:
    try:
        learner.load(folder)
    except InputError:
        raise
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the checkpoint in {folder} is of another run or device ({one_line(error)}); go on "
            "where it was written, or start a new run in another folder"
        ) from None


def _due(step: int, every: int, steps: int) -> bool:
    return step % every == 0 or step == steps


def _bar(steps: int, initial: int) -> tqdm:
    return tqdm(total=steps, initial=initial, unit="step", desc="train-agent", mininterval=0.5)
