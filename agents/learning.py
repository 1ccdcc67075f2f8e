"""How agents are trained: by the one training loop, and evaluated beside it."""

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, runtime_checkable

from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.policy_evaluation import Critics, PolicyEvaluation
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import one_line
from mbrl_bilevel.training.checkpointer import Checkpointer
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.interruption import Interruption
from mbrl_bilevel.training.loop import Callback, Trainable, Training, train
from mbrl_bilevel.training.metrics_log import MetricsLog
from mbrl_bilevel.training.progress import Progress
from mbrl_bilevel.training.rollback import InFolder, Rollback
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.tensorboard import agent_layout


@runtime_checkable
class Learner(Trainable, Protocol):
    """An agent that learns step by step."""

    def policy(self) -> BehaviourPolicy | None:
        """What is evaluated; None where playing it would cost as much as the training."""


@runtime_checkable
class HasCritics(Protocol):
    """An agent whose values are held against returns."""

    def critics(self) -> Critics:
        """What the evaluated policy is expected to earn."""


def learn(
    learner: Learner,
    run: RunFolder,
    evaluation: PolicyEvaluation,
    *,
    steps: int,
    log_every: int,
    evaluate_every: int,
    checkpoint_seconds: float = 30.0,
    callbacks: Sequence[Callback] = (),
) -> dict[str, float]:
    """Trains up to step `steps` and returns the metrics of the last evaluation.

    An evaluation plays beside the training and is written down at the next `log_every` steps, or
    before the next checkpoint: metrics.jsonl is the same however often a run is interrupted, except
    for `time/...` metrics. A run that is resumed continues from its checkpoint.

    Raises:
        InputError: a checkpoint that is damaged, or of another run.
        TrainingDiverged: for the second time, or before the first checkpoint; with the checkpoint
            that is kept in the sentence. The first time training goes on from the last checkpoint
            at a tenth of the learning rate, with a UserWarning.
        WorkerDied: the process that evaluates was killed.
        Interrupted: by SIGINT or SIGTERM, after a checkpoint.
    """
    if run.resumed:
        _load(learner, run)
    interruption = Interruption()
    checkpointer = Checkpointer(run, checkpoint_seconds, interruption)
    evaluations = PolicyEvaluations(learner, run, evaluation, evaluate_every)
    layout = agent_layout(model=hasattr(learner, "model"), critics=isinstance(learner, HasCritics))
    in_order = [
        interruption,
        Progress("train-agent", shown={}, disable=False),
        Rollback(InFolder(learner, checkpointer), checkpointer),
        *callbacks,
        evaluations,  # whose lines must be in the log before it is synced for a checkpoint
        MetricsLog(run, "time/steps_per_second", layout),
        checkpointer,
    ]
    train(learner, steps=steps, metrics_every=log_every, callbacks=in_order)
    return evaluations.latest


class PolicyEvaluations(Callback):
    """Evaluates the policy every so many steps, by a process that plays while training goes on."""

    def __init__(
        self, learner: Learner, run: RunFolder, evaluation: PolicyEvaluation, every: int
    ) -> None:
        self.learner, self.run, self.evaluation, self.every = learner, run, evaluation, every
        self.latest: dict[str, float] = {}

    def before_metrics(self, training: Training) -> None:
        self._log(training)

    def before_save(self, training: Training) -> None:
        self._log(training)

    def after_step(self, training: Training) -> None:
        policy = self.learner.policy() if training.is_due(self.every) else None
        if policy is not None:
            self._log(training)
            self.evaluation.start(training.step, policy, self._critics())

    def on_divergence(self, training: Training, error: TrainingDiverged) -> bool:
        """Forgets the evaluation of a policy that is given up."""
        self.evaluation.collect()
        return False

    def on_success(self, training: Training) -> None:
        """Of a finished run that was resumed the last evaluation is made anew."""
        if not self.latest and (policy := self.learner.policy()) is not None:
            self.evaluation.start(training.step, policy, self._critics())
            self.latest = (self.evaluation.collect() or (0, {}))[1]

    def _critics(self) -> Critics | None:
        return self.learner.critics() if isinstance(self.learner, HasCritics) else None

    def _log(self, training: Training) -> None:
        found = self.evaluation.collect()
        if found is not None:
            step, self.latest = found
            self.run.log(step, self.latest)
            training.status = f"return {self.latest['evaluation/return']:.1f} at step {step}"

    def __enter__(self) -> "PolicyEvaluations":
        self.evaluation.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.evaluation.__exit__(kind, error, trace)


def _load(learner: Learner, run: RunFolder) -> None:
    try:
        learner.load(run.path)
    except InputError:
        raise
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the checkpoint in {run.path} is of another run or device ({one_line(error)}); go on "
            "where it was written, or start a new run in another folder"
        ) from None
