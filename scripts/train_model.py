"""`train-model`: a dynamics model from a Minari data set."""

import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from mbrl_bilevel.agents.policy_mean import PolicyMean
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.minari import Dataset, load_dataset
from mbrl_bilevel.data.split import split
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.tasks import TASKS, Task, find_task
from mbrl_bilevel.evaluation.one_step import OneStep, evaluate_one_step
from mbrl_bilevel.evaluation.targets import how_many_vary, target_counts, warn_of_moving
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.objectives.new_model import new_model, observation_names
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.objectives.two_level import TwoLevel
from mbrl_bilevel.products import choose_products
from mbrl_bilevel.scripts.acting_environment import acting_environment, agreeing
from mbrl_bilevel.scripts.command import Outcome, resolve_device, run_folder_hint, say
from mbrl_bilevel.scripts.flag_checks import refuse_rounded_outer_level
from mbrl_bilevel.scripts.flags.train_model import Config
from mbrl_bilevel.scripts.plain import plain
from mbrl_bilevel.scripts.reward_figures import RewardFigures
from mbrl_bilevel.scripts.training_data import described, require_unchanged
from mbrl_bilevel.scripts.visiting_policy import visiting_policy
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.fit import fit
from mbrl_bilevel.training.objective import Objective
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.trainer import FitResult
from mbrl_bilevel.warning_lines import warnings_in_one_line

IGNORED = (
    *("json", "resume", "download", "cache", "device", "checkpoint_seconds", "out", "plugin"),
)


def run(config: Config) -> Outcome:
    with warnings_in_one_line():
        try:
            return _run(config)
        except TrainingDiverged as error:
            raise SystemExit(f"mbrl-bilevel train-model: {error}") from None


def _run(config: Config) -> Outcome:
    device = resolve_device(config.run.device)
    refuse_rounded_outer_level(config.run.precision, config.objective)
    products = choose_products(config.run.precision, device)
    dataset, task = _data(config)
    policy = visiting_policy(config.objective, dataset, config.data.env, device)
    training = _Training.of(config, dataset, task, device, policy)
    out, resume = config.run.out, config.run.resume
    if resume:
        require_unchanged(out, config.data.dataset, dataset)
    with RunFolder(out, resolved(config, dataset), resume=resume) as folder:
        say(run_folder_hint(out))
        say(f"{dataset.id}: {training.sizes}, on {device}, {products}")
        model = training.new_model()
        objective = training.objective(model)
        result, learned = training.fit_and_draw(model, objective, folder)
        model.save(out)
        on_test = evaluate_one_step(model, training.test)
        results = _results(training, result, model, on_test) | {"learned_U": learned}
        if config.run.cold_restart and isinstance(objective, TwoLevel):
            results["cold_restart"] = {
                "warm": _metrics(result, on_test),
                "cold": training.cold_restart(objective),
            }
        for name in ("rmse", "nll"):
            folder.tensorboard.add_scalar(f"test/{name}", getattr(on_test, name), result.steps)
        folder.summarize(results)
    return Outcome(results, _text(config, on_test, how_many_vary(target_counts(model))))


@dataclass(frozen=True)
class _Training:
    """What the models of a run are made of, and the parts of the data; one generator for all."""

    config: Config
    dataset: Dataset
    task: Task | None
    train: Transitions
    held_out: Transitions
    test: Transitions
    generator: torch.Generator
    policy: PolicyMean | None  # which the outer level follows

    @classmethod
    def of(
        cls,
        config: Config,
        dataset: Dataset,
        task: Task | None,
        device: torch.device,
        policy: PolicyMean | None,
    ) -> "_Training":
        seed, most = config.run.seed, config.data.max_transitions
        parts = split(dataset.transitions, seed, max_transitions=most)
        train, held_out, test = (part.to(device) for part in parts)
        generator = torch.Generator(device).manual_seed(seed)
        return cls(config, dataset, task, train, held_out, test, generator, policy)

    @property
    def sizes(self) -> str:
        return (
            f"{len(self.train)} transitions to train on, {len(self.held_out)} held out, "
            f"{len(self.test)} to test, {self.dataset.transitions.episodes} episodes"
        )

    def new_model(self) -> DynamicsModel:
        settings = self.config.model
        return new_model(
            self.dataset,
            self.config.objective,
            settings,
            task=self.task,
            learn_reward={"yes": True, "no": False, "auto": None}[settings.learn_reward],
            generator=self.generator,
        )

    def objective(self, model: DynamicsModel) -> Objective:
        """Fits the model's standardisers, of which an objective may depend."""
        model.fit_standardizers(self.train)
        warn_of_moving(model, self.held_out, "held-out")
        warn_of_moving(model, self.test, "test")
        return self.config.objective.build(
            model,
            self.train,
            self.held_out,
            steps=self.config.fit.steps,
            generator=self.generator,
            policy=self.policy,
        )

    def fit(self, model: DynamicsModel, objective: Objective, **options: Any) -> FitResult:
        return fit(
            model,
            objective,
            self.train,
            self.held_out,
            settings=self.config.fit,
            elites=self.config.model.elites,
            generator=self.generator,
            **options,
        )

    def fit_and_draw(
        self, model: DynamicsModel, objective: Objective, folder: RunFolder
    ) -> tuple[FitResult, dict[str, float] | None]:
        """The fit of the run, with checkpoints, and figures of a learned reward; its medians."""
        figures = RewardFigures(objective, model, self.held_out, folder)
        result = self.fit(
            model,
            objective,
            run=folder,
            checkpoint_seconds=self.config.run.checkpoint_seconds,
            callbacks=[figures],
        )
        figures.save()
        return result, figures.median_precision()

    def cold_restart(self, objective: TwoLevel) -> dict[str, float]:
        """Metrics of a fresh model under what the outer level has learned, which is frozen."""
        say("cold restart: a fresh model under what the outer level has learned, now frozen")
        objective.freeze()
        fresh = self.new_model()
        result = self.fit(fresh, objective)
        return _metrics(result, evaluate_one_step(fresh, self.test))


def _results(
    training: _Training, result: FitResult, model: DynamicsModel, test: OneStep
) -> dict[str, Any]:
    config = training.config
    parts = {"train": training.train, "held_out": training.held_out, "test": training.test}
    return {
        "run": str(config.run.out),
        "steps": result.steps,
        "seconds": round(result.seconds, 2),
        "stopped_early": result.stopped_early,
        "held_out_nll": sum(result.nll) / len(result.nll),
        "held_out_mse": sum(result.mse) / len(result.mse),
        "test": test.metrics() | target_counts(model),
        "transitions": {name: len(part) for name, part in parts.items()},
        "objective": OBJECTIVES.name(config.objective),
        "parameters": model.network.parameter_count,
        "dataset": training.dataset.id,
        "seed": config.run.seed,
    }


def _data(config: Config) -> tuple[Dataset, Task | None]:
    """The data set, and what is known of its task, held against each other."""
    dataset = load_dataset(
        config.data.dataset, download=config.data.download, cache=config.data.cache
    )
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
    if (visited_by := values.get("visited_by")) and Path(visited_by).is_dir():
        values["visited_by"] = Path(visited_by).resolve()  # the same run from any directory
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
