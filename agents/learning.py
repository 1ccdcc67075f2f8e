"""The one loop that trains every agent: steps, evaluations, metrics, checkpoints, signals."""

import time
import warnings
from pathlib import Path
from typing import Protocol, runtime_checkable

from tqdm import tqdm

from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.policy_evaluation import PolicyEvaluation
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import one_line
from mbrl_bilevel.training.checkpointer import Checkpointer
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.interruption import Interruption
from mbrl_bilevel.training.rollback import SLOWER
from mbrl_bilevel.training.run_folder import RunFolder


@runtime_checkable
class Learner(Protocol):
    """An agent that learns step by step.

    `steady` says whether `save` leads back to this very point; `metrics` averages since its last
    call, and raises TrainingDiverged for an agent that is lost; `policy` is what is evaluated, or
    None where playing it would cost as much as the training. `slowed` says whether
    `scale_learning_rate` has been called in this run, or that there is nothing to scale.
    """

    @property
    def step(self) -> int: ...

    @property
    def steady(self) -> bool: ...

    @property
    def slowed(self) -> bool: ...

    def scale_learning_rate(self, factor: float) -> None: ...

    def train_step(self) -> None: ...

    def metrics(self) -> dict[str, float]: ...

    def policy(self) -> BehaviourPolicy | None: ...

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
    """Trains for `steps` steps and returns the metrics of the last evaluation.

    An evaluation plays beside the training and is written down at the next `log_every` steps, or
    before the next checkpoint: metrics.jsonl is the same however often a run is interrupted, but
    for `time/...` metrics.

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
    checkpointer = Checkpointer(learner, run, checkpoint_seconds)
    with Interruption() as interruption, evaluation, _bar(steps, learner.step) as bar:
        watch = TrainingMonitor(
            learner,
            run,
            evaluation,
            checkpointer,
            interruption,
            bar,
            steps,
            log_every,
            evaluate_every,
        )
        while learner.step < steps:
            try:
                learner.train_step()
                watch.after_step()
            except TrainingDiverged as error:
                watch.roll_back(error)
        return watch.last_evaluation()


class TrainingMonitor:
    """What happens around the steps: metrics, evaluations, checkpoints, the end by a signal."""

    def __init__(
        self,
        learner: Learner,
        run: RunFolder,
        evaluation: PolicyEvaluation,
        checkpointer: Checkpointer,
        interruption: Interruption,
        bar: tqdm,
        steps: int,
        log_every: int,
        evaluate_every: int,
    ) -> None:
        self.learner, self.run, self.evaluation = learner, run, evaluation
        self.checkpointer, self.interruption, self.bar = checkpointer, interruption, bar
        self.steps, self.log_every, self.evaluate_every = steps, log_every, evaluate_every
        self.last: dict[str, float] = {}
        self._start_clock()

    def after_step(self) -> None:
        self.bar.update()
        if self._due(self.log_every):
            self._collect()
            rate = (self.learner.step - self.first) / (time.monotonic() - self.began)
            self.run.log(
                self.learner.step, self.learner.metrics() | {"time/steps_per_second": rate}
            )
            self._start_clock()
        policy = self.learner.policy() if self._due(self.evaluate_every) else None
        if policy is not None:
            self._collect()
            self.evaluation.start(self.learner.step, policy)
        self._keep()

    def _keep(self) -> None:
        ended = self.learner.step == self.steps  # nothing comes after, that a state must lead to
        if self.interruption.signal is not None and not (self.learner.steady or ended):
            self.bar.set_postfix_str("stops at the next fit; Ctrl-C again stops at once")
        elif self.interruption.signal is not None:
            self._collect()
            self.checkpointer.stop(self.interruption)
        elif ended or (self.checkpointer.due and self.learner.steady):
            self._collect()
            self.checkpointer.save()

    def roll_back(self, error: TrainingDiverged) -> None:
        """To the last checkpoint, at a lower rate; once."""
        if self.learner.slowed or self.checkpointer.saved is None:
            raise TrainingDiverged(f"{error}{self.checkpointer.kept()}") from None
        self.evaluation.collect()  # of a policy that is given up
        self.learner.load(self.run.path)
        self.learner.scale_learning_rate(SLOWER)
        self.run.continue_from(self.learner.step)
        self.bar.update(self.learner.step - self.bar.n)
        self._start_clock()
        warnings.warn(
            f"{error}; going on from step {self.learner.step} at {SLOWER:g} of the learning rate",
            stacklevel=3,
        )

    def last_evaluation(self) -> dict[str, float]:
        """Its metrics; of a finished run that was resumed it is made anew."""
        if not self.last and (policy := self.learner.policy()) is not None:
            self.evaluation.start(self.learner.step, policy)
            self.last = (self.evaluation.collect() or (0, {}))[1]
        return self.last

    def _collect(self) -> None:
        found = self.evaluation.collect()
        if found is not None:
            step, self.last = found
            self.run.log(step, self.last)
            self.bar.set_postfix_str(f"return {self.last['evaluation/return']:.1f} at step {step}")

    def _start_clock(self) -> None:
        self.began, self.first = time.monotonic(), self.learner.step

    def _due(self, every: int) -> bool:
        return self.learner.step % every == 0 or self.learner.step == self.steps


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


def _bar(steps: int, initial: int) -> tqdm:
    return tqdm(total=steps, initial=initial, unit="step", desc="train-agent", mininterval=0.5)
