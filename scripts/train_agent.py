"""`train-agent`: a policy, trained online in the real environment or offline from a data set."""

import time
from dataclasses import asdict, fields
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from mbrl_bilevel.agents.build import check_memory, make_agent
from mbrl_bilevel.agents.checks import Acting, check_agent, task_of
from mbrl_bilevel.agents.learning import learn
from mbrl_bilevel.agents.main_script import check_main_script
from mbrl_bilevel.agents.model_check import check_model
from mbrl_bilevel.agents.parallel import WorkerDied
from mbrl_bilevel.agents.policy_evaluation import PolicyEvaluation
from mbrl_bilevel.agents.presets import by_name_of
from mbrl_bilevel.agents.settings import AGENTS, MOPOSettings
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.minari import Dataset, load_dataset
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.tasks import get_task, planned_task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.model_file import WEIGHTS
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.scripts import train_model
from mbrl_bilevel.scripts.acting_environment import acting_environment, agreeing
from mbrl_bilevel.scripts.command import (
    Outcome,
    fast_products,
    how_to_watch,
    resolve_device,
    say,
)
from mbrl_bilevel.scripts.flags import train_model as train_flags
from mbrl_bilevel.scripts.flags.train_agent import Config, DataFlags
from mbrl_bilevel.scripts.plain import plain
from mbrl_bilevel.scripts.training_data import described, require_unchanged
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.run_folder import CONFIG, SUMMARY, RunFolder
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.warning_lines import warnings_in_one_line

IGNORED = ("json", "resume", "download", "device", "checkpoint_seconds", "out", "plugin")


def run(config: Config) -> Outcome:
    try:
        with warnings_in_one_line():
            return _run(config)
    except (TrainingDiverged, WorkerDied) as error:
        raise SystemExit(f"mbrl-bilevel train-agent: {error}") from None


def _run(config: Config) -> Outcome:
    flags, settings, data = config.run, config.agent, config.data
    device = resolve_device(flags.device)
    torch.set_num_threads(flags.threads)
    fast_products()
    if getattr(settings, "evaluates_policy", True):
        check_main_script()
    dataset = None if data is None else load_dataset(data.dataset, download=data.download)
    spec = _environment(config, dataset)
    acting = Acting(
        env=spec,
        seed=flags.seed,
        max_steps=config.environment.max_steps,
        check_task=not config.environment.unchecked_task,
    )
    given = _given_model(data, spec, device)
    check_agent(settings, acting, dataset=dataset, model=given)
    if flags.resume and dataset is not None and data is not None:
        require_unchanged(flags.out, data.dataset, dataset)
    resolved = _resolved(config, spec, dataset)
    if dataset is not None and acting.check_task:
        learned = getattr(settings, "model", None)
        reward = getattr(learned, "learn_reward", "auto") == "yes"
        reward = reward or (given is not None and given.learn_reward)
        dataset = agreeing(dataset, task_of(spec), reward=not reward)
    # before there is a folder: memory may not be enough
    if isinstance(settings, MOPOSettings):
        assert dataset is not None
        check_memory(settings, acting, dataset, given, device)
    else:
        learner = make_agent(settings, acting, device=device, dataset=dataset, model=given)
    with RunFolder(flags.out, resolved, flags.resume) as folder:
        say(how_to_watch(flags.out))
        if isinstance(settings, MOPOSettings):
            model = given or DynamicsModel.load(_trained_model(config, settings), device)
            learner = make_agent(settings, acting, device=device, dataset=dataset, model=model)
        began = time.monotonic()
        metrics = learn(
            learner,
            folder,
            PolicyEvaluation(spec, flags.seed, config.evaluation.episodes, acting.max_steps),
            steps=settings.steps,
            log_every=flags.log_every,
            evaluate_every=config.evaluation.evaluate_every,
            checkpoint_seconds=flags.checkpoint_seconds,
        )
        found: dict[str, Any] = {
            "run": str(flags.out),
            "steps": settings.steps,
            "seconds": round(time.monotonic() - began, 2),
            "mean_return": metrics.get("evaluation/return"),
            "std_return": metrics.get("evaluation/return_std"),
            "agent": AGENTS.name(settings),
            "env": spec.id,
            "seed": flags.seed,
        }
        folder.summarize(found)
    return Outcome(found, _text(config, spec.id, found))


def _environment(config: Config, dataset: Dataset | None) -> EnvSpec:
    env = config.environment.env
    if dataset is None or config.data is None:
        assert env is not None
        return EnvSpec(env)
    whose = f"data set {config.data.dataset}"
    return acting_environment(env, dataset.env_spec, whose, "was collected in")


def _given_model(
    data: DataFlags | None, spec: EnvSpec, device: torch.device
) -> DynamicsModel | None:
    """That of --model, if it is one of this environment."""
    if data is None or data.model is None:
        return None
    model, env = DynamicsModel.load(data.model, device), make_env(spec)
    check_model(model, data.model, spec, env)
    planned_task(get_task(spec), model)
    env.close()
    return model


def _trained_model(config: Config, settings: MOPOSettings) -> Path:
    """The folder of a model that is trained now, or was when the run was interrupted."""
    folder = config.run.out / "model"
    if not (folder / SUMMARY).is_file():
        assert config.data is not None
        size, flags = settings.model, config.run
        sizes = {f.name: getattr(size, f.name) for f in fields(size) if f.name != "model_steps"}
        train_model.run(
            train_flags.Config(
                run=train_flags.RunFlags(
                    out=folder,
                    resume=(folder / CONFIG).is_file(),
                    seed=flags.seed,
                    device=flags.device,
                ),
                data=train_flags.DataFlags(
                    dataset=config.data.dataset,
                    env=config.environment.env,
                    unchecked_task=config.environment.unchecked_task,
                ),
                model=train_flags.ModelFlags(**sizes),
                objective=settings.objective,
                fit=FitSettings(steps=size.model_steps),
            )
        )
    return folder


def _resolved(config: Config, spec: EnvSpec, dataset: Dataset | None) -> dict[str, Any]:
    """What decides a run's result, as config.yaml holds it."""
    values: dict[str, Any] = {"agent": AGENTS.name(config.agent)}
    for group in (config.run, config.environment, config.data, config.evaluation):
        values |= {} if group is None else asdict(group)
    values |= {"env": spec.id, "environment": spec.to_plain()} | by_name_of(config.agent)
    objective = getattr(config.agent, "objective", None)
    if objective is not None:
        values["objective"] = OBJECTIVES.name(objective)
    if dataset is not None and config.data is not None:
        values |= described(config.data.dataset, dataset)
    return {k: plain(v) for k, v in values.items() if k not in IGNORED}


def _text(config: Config, env_id: str, found: dict[str, Any]) -> str:
    out = quote(str(config.run.out))
    if found["mean_return"] is None:
        if not (config.run.out / WEIGHTS).is_file():
            return f"trained for {found['steps']} steps; results: {out}"
        again = f"--agent mpc --model {out}"
        what = "the model is fitted to everything that was seen"
    else:
        again = f"--agent policy --model {out}"
        what = (
            f"return {found['mean_return']:.1f} +- {found['std_return']:.1f} "
            f"({config.evaluation.episodes} episodes)"
        )
    again += f" --env {env_id}" if ":" in env_id else ""
    again += " --episodes 10"
    if config.environment.max_steps is not None:
        again += f" --max-steps {config.environment.max_steps}"
    return f"{what}\nnext: mbrl-bilevel eval-agent {again}"
