"""`train-model`: a dynamics model from a Minari data set."""

import warnings
from dataclasses import asdict, replace
from functools import partial
from shlex import quote
from typing import Any

import torch

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.minari import Dataset, load_dataset
from mbrl_bilevel.data.split import split
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.tasks import TASKS, Task, find_task
from mbrl_bilevel.evaluation.one_step import OneStep, evaluate_one_step
from mbrl_bilevel.evaluation.targets import how_many_vary, target_counts, warn_of_moving
from mbrl_bilevel.objectives.bilevel import Bilevel
from mbrl_bilevel.objectives.new_model import new_model, observation_names
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.scripts.acting_environment import acting_environment, agreeing
from mbrl_bilevel.scripts.command import Outcome, how_to_watch, resolve_device, say
from mbrl_bilevel.scripts.flags.train_model import Config
from mbrl_bilevel.scripts.plain import plain
from mbrl_bilevel.scripts.reward_figures import RewardFigures
from mbrl_bilevel.scripts.training_data import described, require_unchanged
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.fit import fit
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.trainer import FitResult
from mbrl_bilevel.warning_lines import warnings_in_one_line

IGNORED = ("json", "resume", "download", "device", "checkpoint_seconds", "out", "plugin")


def run(config: Config) -> Outcome:
    with warnings_in_one_line():
        try:
            return _run(config)
        except TrainingDiverged as error:
            raise SystemExit(f"mbrl-bilevel train-model: {error}") from None


def _run(config: Config) -> Outcome:
    flags, out = config.run, config.run.out
    device = resolve_device(flags.device)
    dataset, task = _data(config)
    generator = torch.Generator(device).manual_seed(flags.seed)
    parts = split(dataset.transitions, flags.seed, max_transitions=config.data.max_transitions)
    train, held_out, test = (part.to(device) for part in parts)
    if flags.resume:
        require_unchanged(out, config.data.dataset, dataset)
    with RunFolder(out, resolved(config, dataset), resume=flags.resume) as folder:
        say(how_to_watch(out))
        say(
            f"{dataset.id}: {len(train)} transitions to train on, {len(held_out)} held out, "
            f"{len(test)} to test, {dataset.transitions.episodes} episodes, on {device}"
        )
        make = partial(
            new_model,
            dataset,
            config.objective,
            config.model,
            task=task,
            learn_reward={"yes": True, "no": False, "auto": None}[config.model.learn_reward],
            generator=generator,
        )
        model = make()
        model.fit_standardizers(train)
        warn_of_moving(model, held_out, "held-out")
        warn_of_moving(model, test, "test")
        objective = config.objective.build(
            model, train, held_out, steps=config.fit.steps, generator=generator
        )
        figures = RewardFigures(objective, model, held_out, folder)
        refit = partial(
            fit,
            objective=objective,
            train=train,
            held_out=held_out,
            generator=generator,
            settings=config.fit,
            elites=config.model.elites,
        )
        result = refit(
            model, run=folder, checkpoint_seconds=flags.checkpoint_seconds, callbacks=[figures]
        )
        figures.save()
        model.save(out)
        on_test = evaluate_one_step(model, test)
        results = {
            "run": str(out),
            "steps": result.steps,
            "seconds": round(result.seconds, 2),
            "stopped_early": result.stopped_early,
            "held_out_nll": sum(result.nll) / len(result.nll),
            "held_out_mse": sum(result.mse) / len(result.mse),
            "test": on_test.metrics() | target_counts(model),
            "transitions": {"train": len(train), "held_out": len(held_out), "test": len(test)},
            "objective": OBJECTIVES.name(config.objective),
            "dataset": dataset.id,
            "seed": flags.seed,
        }
        if flags.cold_restart and isinstance(objective, Bilevel):
            say("cold restart: a fresh model under the learned reward, which is frozen")
            objective.freeze()
            fresh = make()
            again = refit(fresh)
            on_test_again = evaluate_one_step(fresh, test)
            both = {"warm": _metrics(result, on_test), "cold": _metrics(again, on_test_again)}
            results["cold_restart"] = both
        for name in ("rmse", "nll"):
            folder.tensorboard.add_scalar(f"test/{name}", getattr(on_test, name), result.steps)
        folder.summarize(results)
    return Outcome(results, _text(config, on_test, how_many_vary(target_counts(model))))


def _data(config: Config) -> tuple[Dataset, Task | None]:
    """The data set, and what is known of its task, held against each other."""
    dataset = load_dataset(config.data.dataset, download=config.data.download)
    spec = dataset.env_spec
    if config.data.env is not None:
        whose = f"data set {config.data.dataset}"
        named = acting_environment(config.data.env, spec, whose, "was collected in")
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
    observation_names(dataset, task)  # refuses a task of other dimensions
    if not config.data.unchecked_task:
        agreeing(dataset, task, reward=config.model.learn_reward != "yes")
    return dataset, task


def resolved(config: Config, dataset: Dataset) -> dict[str, Any]:
    """What decides a run's result, as config.yaml holds it."""
    values: dict[str, Any] = {"objective": OBJECTIVES.name(config.objective)}
    for group in (config.run, config.data, config.model, config.objective, config.fit):
        values |= asdict(group)
    spec = dataset.env_spec
    values |= described(config.data.dataset, dataset)
    values |= {"environment": None if spec is None else spec.to_plain()}
    return {k: plain(v) for k, v in values.items() if k not in IGNORED}


def _metrics(result: FitResult, test: OneStep) -> dict[str, float]:
    """Held-out metrics, means over members, and test metrics of the mixture, per dimension."""
    return {
        "held_out_nll": sum(result.nll) / len(result.nll),
        "held_out_mse": sum(result.mse) / len(result.mse),
        "test_nll": test.nll,
        "test_mse": test.rmse**2,
    }


def _text(config: Config, test: OneStep, targets: str) -> str:
    env = config.data.env
    where = f" --env {env}" if env and ":" in env else ""
    out = quote(str(config.run.out))
    return (
        f"test episodes: RMSE {test.rmse:.4f}, NLL {test.nll:.3f} per dimension, R2 {test.r2:.4f}, "
        f"calibration error {test.ece:.3f} (standardised units, mixture of members; {targets})\n"
        f"next: mbrl-bilevel eval-model --model {out}\n"
        f"      mbrl-bilevel eval-agent --agent mpc --model {out}{where} --episodes 5"
    )
