"""Fits of the model to the replay of an online agent, again and again."""

import warnings
from bisect import bisect_left
from collections.abc import Sequence
from functools import partial

import torch

from mbrl_bilevel.agents.setting_groups import WHOLE, AgentModelSettings, RefitSettings
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.data.transitions import Transitions, split_by_episode
from mbrl_bilevel.envs.task_check import (
    GO_ON,
    LEARN_REWARD,
    reward_disagreement,
    termination_disagreement,
)
from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.one_step import one_step
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.nested_state import State, nest, part
from mbrl_bilevel.objectives.settings import OBJECTIVES, OuterSettings
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.training.batches import cross_fit
from mbrl_bilevel.training.fit import fit
from mbrl_bilevel.training.kept_moments import KeptMoments
from mbrl_bilevel.training.loop import Callback
from mbrl_bilevel.training.settings import FitSettings

BLOCK = 50  # steps that are held out, or left out, together: neighbours in time are alike
TOO_FEW_STEPS = f"{BLOCK} steps in a row stand for an episode here: take more --start-steps"


class ModelFits:
    """The model of an online agent, kept up with its replay.

    Args:
        task: held against the first data before the model learns from them; None: unchecked.
    """

    def __init__(
        self,
        settings: RefitSettings,
        size: AgentModelSettings,
        objective: ObjectiveSpec,
        model: DynamicsModel,
        generator: torch.Generator,
        *,
        task: Task | None,
    ) -> None:
        self.settings, self.size, self.objective = settings, size, objective
        self.model, self.generator, self.task = model, generator, task
        self.moments = KeptMoments() if settings.model_optimizer == "kept" else None
        self.fitted_to = 0  # transitions of the replay at the last fit
        self.latest: dict[str, float] = {}
        """Metrics of the last fit."""

    def fit(self, replay: Replay) -> None:
        """Evaluates the model on what is new in the replay, then fits it to all.

        Raises:
            InputError: the environment pays, or ends, otherwise than the task; too few steps.
        """
        transitions = in_blocks(replay.in_order())
        metrics: dict[str, float] = {}
        if self.fitted_to:
            # Before the fit: afterwards these steps are training data.
            fresh = transitions[-(replay.added - self.fitted_to) :]
            elites = self.model.network.select(self.model.elites)
            error = one_step(elites, *self.model.encode(fresh))
            metrics = {"fresh_rmse": error.rmse, "fresh_nll": error.nll}
        elif self.task is not None:
            # Once: a task that is wrong is wrong in the random steps already.
            check_task_against(transitions, self.task, self.model)
        metrics |= self.fit_to(transitions)
        self.latest |= {f"model/{name}": value for name, value in metrics.items()}
        self.fitted_to = replay.added

    def fit_to(self, transitions: Transitions) -> dict[str, float]:
        """Goes on fitting the model, from the weights that it has; returns held-out metrics."""
        first = self.settings.first_model_steps if not self.fitted_to else None
        steps = first or self.size.model_steps
        return fit_again(
            self.model,
            transitions,
            self.objective,
            self.size,
            self.settings,
            self.generator,
            steps,
            callbacks=() if self.moments is None else (self.moments,),
        )

    def state(self) -> State:
        latest = {k: torch.tensor(v, dtype=torch.float64) for k, v in self.latest.items()}
        moments = {} if self.moments is None else self.moments.state
        parts = {"latest": latest, "moments": moments}
        return nest(parts) | {"fitted_to": torch.tensor(self.fitted_to)}

    def load_state(self, state: State) -> None:
        self.latest = {k: v.item() for k, v in part(state, "latest").items()}
        if self.moments is not None:
            self.moments.state = part(state, "moments")
        self.fitted_to = int(state["fitted_to"])


def fit_again(
    model: DynamicsModel,
    data: Transitions,
    objective: ObjectiveSpec,
    size: AgentModelSettings,
    settings: RefitSettings,
    generator: torch.Generator,
    steps: int,
    *,
    callbacks: Sequence[Callback] = (),
) -> dict[str, float]:
    """Goes on fitting a model, by any objective, to data that have grown.

    `steps` are the gradient steps; or, where held-out scores end the fit, what the cap multiplies.

    Raises:
        InputError: too few blocks of steps to hold any out.
    """
    share = settings.held_out_share(len(data))
    shares = 1 - share, share
    # Split anew each time: what was held out once is learned from later.
    train, held_out = split_by_episode(data, shares, generator, remedy=TOO_FEW_STEPS)
    result = fit(
        model,
        objective,
        train,
        held_out,
        generator=generator,
        settings=fit_settings(settings, steps, len(train)),
        elites=size.elites,
        warm_start=True,
        progress=False,
        callbacks=callbacks,
    )
    return {
        "fit_steps": float(result.steps),
        "held_out_nll": sum(result.nll) / len(result.nll),
        "held_out_mse": sum(result.mse) / len(result.mse),
    }


def fit_settings(settings: RefitSettings, steps: int, rows: int) -> FitSettings:
    """Those of a fit to `rows` training rows, after which of `steps` or of held-out scores it ends.

    With held-out scores the schedule of the learning rate is that of the cap.
    """
    # Fits of fixed length are short, and each member keeps its best parameters anyway.
    patience, level = None, None
    every = max(1, steps // settings.model_evaluations)
    if settings.model_stop == "held_out":
        patience, level = settings.model_patience, settings.model_progress_level
        every = settings.model_evaluate_every or max(1, rows // settings.model_batch_size)
        # A cap beyond what steps can be counted to is none.
        steps = round(min(settings.model_cap * steps, WHOLE.high))
    return FitSettings(
        steps=steps,
        batch_size=settings.model_batch_size,
        resampling=settings.model_resampling,
        learning_rate=settings.model_learning_rate,
        weight_decay=settings.model_weight_decay,
        schedule=settings.model_schedule,
        patience=patience,
        progress_level=level,
        evaluate_every=every,
    )


def check_task_against(data: Transitions, task: Task, model: DynamicsModel) -> None:
    """Refuses a task that real steps contradict.

    Raises:
        InputError: the environment pays, or ends, otherwise than the task.
    """
    wrong, remedy = termination_disagreement(task, data), GO_ON
    if wrong is None and not model.learn_reward:
        wrong, remedy = reward_disagreement(task, data), LEARN_REWARD
    if wrong is not None:
        raise InputError(f"the random steps in the environment hold {wrong}; {remedy}")


def in_blocks(data: Batch) -> Transitions:
    """Transitions in the order of time, whose blocks of 50 stand for episodes.

    They are what is held out, or dealt to a fold, as a whole: a learner that began a thousand steps
    ago may have seen one episode only.
    """
    nowhere = torch.zeros_like(data.terminated, dtype=torch.bool)
    block = torch.arange(len(data.reward), device=data.reward.device) // BLOCK
    return Transitions(
        data.observation,
        data.action,
        data.reward,
        data.next_observation,
        data.terminated.bool(),
        nowhere,
        block,
    )


def check_first_fit(
    objective: ObjectiveSpec, members: int, held_out: float, start_steps: int
) -> None:
    """Refuses start steps that cannot be split as the objective needs, before any is taken.

    Raises:
        InputError: fewer than that, with the least number that is enough; or one member alone for
            an objective that leaves a fold out for each.
    """
    folds = None
    if isinstance(objective, OuterSettings) and objective.outer_data == "cross_fit":
        folds = objective.outer_folds
    if folds and members < 2:
        raise InputError(
            f"--members {members}: --objective {OBJECTIVES.name(objective)} leaves other data out "
            "for each member; choose at least 2, or --outer-data held_out"
        )
    enough = partial(_splits, folds, members, held_out)
    if enough(start_steps):
        return
    # More steps split no worse: bisection finds the least number.
    most = BLOCK * (3 * members + 10)
    least = bisect_left(range(most), True, lo=start_steps, key=enough)
    why = f"leave a fold out for each of {members} --members" if folds else "hold data out"
    without_folds = folds is not None and _splits(None, members, held_out, start_steps)
    raise InputError(
        f"--start-steps {start_steps}: too few to fit the model and {why}; choose at least {least}"
        + (", or --outer-data held_out" if without_folds else "")
    )


def _splits(folds: int | None, members: int, held_out: float, count: int) -> bool:
    """Tries the split of `count` rows, and the folds if there are any."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(count, 1, generator=generator)  # no two alike: copies are kept together
    data = in_blocks(Batch(rows, rows, rows[:, 0], rows, torch.zeros(count)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data that are none
        try:
            train, _ = split_by_episode(data, (1 - held_out, held_out), generator)
            if folds is not None:
                wanted = max(members, min(folds, train.episodes))
                cross_fit(train.episode, members, generator, wanted)
        except InputError:
            return False
    return len(train) > 1  # changes of one row are constant
