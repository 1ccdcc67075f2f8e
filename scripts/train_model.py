"""`train-model`: a dynamics model from a Minari data set."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import torch

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.minari import Dataset, load_dataset
from mbrl_bilevel.data.transitions import Transitions, split_by_episode
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.tasks import TASKS, Task, find_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.one_step import OneStep, one_step
from mbrl_bilevel.evaluation.targets import how_many_vary, target_counts, warn_of_moving
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import Covariance, ModelSettings
from mbrl_bilevel.objectives.bilevel import Bilevel
from mbrl_bilevel.objectives.build import build
from mbrl_bilevel.objectives.settings import needs_two_means
from mbrl_bilevel.ranges import Count, Range
from mbrl_bilevel.scripts.acting_environment import acting_environment, agreeing
from mbrl_bilevel.scripts.command import (
    Outcome,
    how_to_watch,
    resolve_device,
    say,
)
from mbrl_bilevel.scripts.flags.shared import Command
from mbrl_bilevel.scripts.objective_flags import ObjectiveFlags
from mbrl_bilevel.scripts.reward_figures import RewardFigures
from mbrl_bilevel.scripts.training_data import described, require_unchanged
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.fit import fit
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings, check_weight_decay
from mbrl_bilevel.training.trainer import FitResult
from mbrl_bilevel.warning_lines import warnings_in_one_line

PARTS = (0.8, 0.1, 0.1)  # of the transitions, by whole episodes: training, held out, test


@dataclass(frozen=True, kw_only=True)
class Config(FitSettings, ObjectiveFlags, Command):
    """Flags of train-model."""

    dataset: str
    """Minari id, or the folder of a Minari data set."""
    out: Path
    """The run folder: config, metrics, TensorBoard events, checkpoint and model go there."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint."""
    download: bool = False
    """Fetch the data set by its id where it is not on this machine."""
    env: str | None = None
    """The environment that the data set must come from (checked), e.g. HalfCheetah-v5; with a
    module that registers it, as in my_module:MyCart-v0, its task is known."""
    max_transitions: Count | None = None
    """Use only so many transitions, whole episodes drawn by the seed."""
    members: Count = 5
    """Members of the ensemble."""
    elites: Count | None = None
    """How many members act, the best by held-out error; default: all."""
    hidden: tuple[Count, ...] = (200, 200, 200)
    """Units of the hidden layers."""
    covariance: Covariance = "diagonal"
    """Of each member's Gaussian."""
    learn_reward: Literal["auto", "yes", "no"] = "auto"
    """Predict the reward too; auto: where the task's reward function is not known."""
    unchecked_task: bool = False
    """Go on where rewards or terminations of the data are not those of the task."""
    checkpoint_seconds: Annotated[float, Range(0, math.inf)] = 20.0
    """Seconds between checkpoints, of which the two newest are kept; 0: at every evaluation."""
    cold_restart: bool = False
    """After bilevel, train a fresh model under the reward that was learned, then frozen, and report
    both: a model that followed the reward through its changes may remember what it was learned
    on."""

    def __post_init__(self) -> None:
        """Nothing: the command checks ranges, in one sentence that tyro would frame."""


def run(config: Config) -> Outcome:
    with warnings_in_one_line():
        try:
            return _run(config)
        except TrainingDiverged as error:
            raise SystemExit(f"mbrl-bilevel train-model: {error}") from None


def _run(config: Config) -> Outcome:
    device = resolve_device(config.device)
    check_weight_decay(config)
    if config.elites is not None and not 1 <= config.elites <= config.members:
        raise InputError(
            f"--elites {config.elites}: choose from 1 to the number of members, {config.members}"
        )
    if config.cold_restart and config.objective != "bilevel":
        raise InputError(
            f"--cold-restart of --objective {config.objective}: only bilevel learns a reward"
        )
    if config.max_transitions is not None and config.max_transitions < len(PARTS):
        raise InputError(
            f"--max-transitions {config.max_transitions}: training, held-out and test part need at "
            f"least {len(PARTS)}"
        )
    dataset, task = _data(config)
    generator = torch.Generator(device).manual_seed(config.seed)
    train, held_out, test = split(dataset, config.seed, config.max_transitions)
    if config.resume:
        require_unchanged(config.out, config.dataset, dataset)
    with RunFolder(config.out, resolved(config, dataset), resume=config.resume) as folder:
        say(how_to_watch(config.out))
        say(
            f"{dataset.id}: {len(train)} transitions to train on, {len(held_out)} held out, "
            f"{len(test)} to test, {dataset.transitions.episodes} episodes, on {device}"
        )
        model = build_model(config, dataset, task, generator)
        train, held_out, test = (part.to(device) for part in (train, held_out, test))
        model.fit_standardizers(train)
        warn_of_moving(model, held_out, "held-out")
        warn_of_moving(model, test, "test")
        objective = build(
            config.spec(), model, train, held_out, steps=config.steps, generator=generator
        )
        figures = RewardFigures(objective, model, held_out, folder)
        refit = partial(
            fit,
            objective=objective,
            train=train,
            held_out=held_out,
            generator=generator,
            settings=config,
            elites=config.elites,
        )
        result = refit(
            model, run=folder, checkpoint_seconds=config.checkpoint_seconds, callbacks=[figures]
        )
        figures.save()
        model.save(config.out)
        test_samples = Samples(*model.encode(test))
        on_test = one_step(model.network.select(model.elites), *test_samples)
        results = {
            "run": str(config.out),
            "steps": result.steps,
            "seconds": round(result.seconds, 2),
            "stopped_early": result.stopped_early,
            "held_out_nll": sum(result.nll) / len(result.nll),
            "held_out_mse": sum(result.mse) / len(result.mse),
            "test": on_test.metrics() | target_counts(model),
            "transitions": {"train": len(train), "held_out": len(held_out), "test": len(test)},
            "objective": config.objective,
            "dataset": dataset.id,
            "seed": config.seed,
        }
        if config.cold_restart and isinstance(objective, Bilevel):
            say("cold restart: a fresh model under the learned reward, which rests")
            objective.freeze()
            fresh = build_model(config, dataset, task, generator)
            again = refit(fresh)
            on_test_again = one_step(fresh.network.select(fresh.elites), *test_samples)
            both = {"warm": _figures(result, on_test), "cold": _figures(again, on_test_again)}
            results["cold_restart"] = both
        for name in ("rmse", "nll"):
            folder.tensorboard.add_scalar(f"test/{name}", getattr(on_test, name), result.steps)
        folder.summarize(results)
    return Outcome(results, _text(config, on_test, how_many_vary(target_counts(model))))


def _data(config: Config) -> tuple[Dataset, Task | None]:
    """The data set, and what is known of its task, held against each other."""
    dataset = load_dataset(config.dataset, download=config.download)
    spec = dataset.env_spec
    if config.env is not None:
        whose = f"data set {config.dataset}"
        named = acting_environment(config.env, spec, whose, "was collected in")
        if spec is None:  # the data set says nothing: the user does
            make_env(named).close()  # which may register its task
            spec = EnvSpec(named.name)
            dataset = replace(dataset, env_spec=spec)
    task = find_task(spec)
    if spec is not None and task is None and spec.name in TASKS:
        warnings.warn(
            f"of the task of {spec}, in which {dataset.id} was collected, nothing is known "
            "with these arguments or wrappers: the model learns the reward",
            stacklevel=2,
        )
    _names(dataset, task)
    if not config.unchecked_task:
        agreeing(dataset, task, reward=config.learn_reward != "yes")
    return dataset, task


def resolved(config: Config, dataset: Dataset) -> dict[str, Any]:
    """What decides a run's result, as config.yaml holds it."""
    ignored = ("json", "resume", "download", "device", "checkpoint_seconds", "out")
    spec = dataset.env_spec
    values = asdict(config) | described(config.dataset, dataset)
    values |= {"environment": None if spec is None else spec.to_plain()}
    return {k: _plain(v) for k, v in values.items() if k not in ignored}


def _figures(result: FitResult, test: OneStep) -> dict[str, float]:
    """Held-out figures, means over members, and test figures of the mixture, per dimension."""
    return {
        "held_out_nll": sum(result.nll) / len(result.nll),
        "held_out_mse": sum(result.mse) / len(result.mse),
        "test_nll": test.nll,
        "test_mse": test.rmse**2,
    }


def split(
    dataset: Dataset, seed: int, max_transitions: int | None = None
) -> tuple[Transitions, ...]:
    """The training, held-out and test parts that every command agrees on, given the run's seed."""
    generator = torch.Generator().manual_seed(seed)
    transitions = dataset.transitions
    if max_transitions is not None and max_transitions < len(transitions):
        share = max_transitions / len(transitions)
        transitions = split_by_episode(transitions, (share, 1 - share), generator)[0]
    return split_by_episode(transitions, PARTS, generator)


def build_model(
    config: Config, dataset: Dataset, task: Task | None, generator: torch.Generator
) -> DynamicsModel:
    """An untrained model of the data set's sizes.

    Its dimensions are named as by the task, or else by a data set with a Dict of observations.
    """
    learn_reward = config.learn_reward == "yes"
    if config.learn_reward == "auto":
        learn_reward = task is None or task.reward is None
    transitions = dataset.transitions
    with torch.device(generator.device):
        return DynamicsModel(
            transitions.observation.shape[1],
            transitions.action.shape[1],
            ModelSettings(
                members=config.members, hidden=config.hidden, covariance=config.covariance
            ),
            learn_reward=learn_reward,
            two_means=needs_two_means(config.spec(), config.covariance),
            env_spec=dataset.env_spec,
            observation_names=_names(dataset, task),
            action_box=dataset.action_box,
            generator=generator,
        )


def _names(dataset: Dataset, task: Task | None) -> Sequence[str] | None:
    dims = dataset.transitions.observation.shape[1]
    if task is None:
        return dataset.observation_names
    if len(task.observation_names) != dims:
        raise InputError(
            f"data set {dataset.id!r} has {dims} observation dimensions, the task of "
            f"{dataset.env_spec} has {len(task.observation_names)} names: collect it again, "
            "or register a task that fits (mbrl_bilevel.envs.tasks.register_task)"
        )
    return task.observation_names


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _text(config: Config, test: OneStep, targets: str) -> str:
    where = f" --env {config.env}" if config.env and ":" in config.env else ""
    out = quote(str(config.out))
    return (
        f"test episodes: RMSE {test.rmse:.4f}, NLL {test.nll:.3f} per dimension, R2 {test.r2:.4f}, "
        f"calibration error {test.ece:.3f} (standardised units, mixture of members; {targets})\n"
        f"next: mbrl-bilevel eval-model --model {out}\n"
        f"      mbrl-bilevel eval-agent --agent mpc --model {out}{where} --episodes 5"
    )
