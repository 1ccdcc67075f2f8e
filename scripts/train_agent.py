"""`train-agent`: a policy, trained online in the real environment or offline from a data set."""

import time
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from mbrl_bilevel.agents.build import check_memory, make_agent
from mbrl_bilevel.agents.checks import Acting, check_agent, task_of
from mbrl_bilevel.agents.learning import Learner, learn
from mbrl_bilevel.agents.main_script import check_main_script
from mbrl_bilevel.agents.model_check import check_model
from mbrl_bilevel.agents.parallel import WorkerDied
from mbrl_bilevel.agents.policy_evaluation import PolicyEvaluation
from mbrl_bilevel.agents.presets import by_name_of
from mbrl_bilevel.agents.settings import AGENTS, AgentSettings, MOPOSettings
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.minari import Dataset, load_dataset
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.tasks import find_task, get_task, planned_task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.model_file import WEIGHTS
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.products import choose_products
from mbrl_bilevel.scripts import train_model
from mbrl_bilevel.scripts.acting_environment import acting_environment, agreeing
from mbrl_bilevel.scripts.command import (
    Outcome,
    resolve_device,
    run_folder_hint,
    say,
)
from mbrl_bilevel.scripts.flag_checks import refuse_rounded_outer_level
from mbrl_bilevel.scripts.flags import train_model as train_flags
from mbrl_bilevel.scripts.flags.train_agent import Config, DataFlags, DataSetFlags
from mbrl_bilevel.scripts.plain import plain
from mbrl_bilevel.scripts.training_data import described, require_unchanged
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.run_folder import CONFIG, SUMMARY, RunFolder
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.warning_lines import warnings_in_one_line

IGNORED = (
    *("json", "resume", "download", "cache", "device", "checkpoint_seconds", "out", "plugin"),
)


def run(config: Config) -> Outcome:
    try:
        with warnings_in_one_line():
            return _run(config)
    except (TrainingDiverged, WorkerDied) as error:
        raise SystemExit(f"mbrl-bilevel train-agent: {error}") from None


def _run(config: Config) -> Outcome:
    flags, device = config.run, resolve_device(config.run.device)
    torch.set_num_threads(flags.threads)
    refuse_rounded_outer_level(flags.precision, getattr(config.agent, "objective", None))
    products = choose_products(flags.precision, device)
    if getattr(config.agent, "evaluates_policy", True):
        check_main_script()
    dataset = _load(config)
    acting = _acting(config, dataset)
    given = _given_model(config.data, acting.env, device)
    check_agent(config.agent, acting, dataset=dataset, model=given)
    _require_unchanged(config, dataset)
    values = resolved(config, acting.env, dataset)
    dataset = _agreeing(config.agent, acting, dataset, given)
    build = partial(make_agent, config.agent, acting, device=device, dataset=dataset)
    learner = None
    if isinstance(config.agent, MOPOSettings):  # its model may have to be trained first
        assert dataset is not None
        check_memory(config.agent, acting, dataset, given, device)
    else:
        learner = build(model=given)
    with RunFolder(flags.out, values, flags.resume) as folder:
        say(run_folder_hint(flags.out))
        say(f"on {device}, {products}")
        learner = learner or build(model=given or _trained_model(config, device))
        found = _learn(config, learner, folder, acting)
        folder.summarize(found)
    return Outcome(found, _text(config, acting.env.id, found))


def _learn(config: Config, learner: Learner, folder: RunFolder, acting: Acting) -> dict[str, Any]:
    """Trains and evaluates; the results, as summary.json holds them."""
    flags, evaluation = config.run, config.evaluation
    began = time.monotonic()
    metrics = learn(
        learner,
        folder,
        PolicyEvaluation(acting.env, flags.seed, evaluation.episodes, acting.max_steps),
        steps=config.agent.steps,
        log_every=flags.log_every,
        evaluate_every=evaluation.evaluate_every,
        checkpoint_seconds=flags.checkpoint_seconds,
    )
    return {
        "run": str(flags.out),
        "steps": config.agent.steps,
        "seconds": round(time.monotonic() - began, 2),
        "mean_return": metrics.get("evaluation/return"),
        "std_return": metrics.get("evaluation/return_std"),
        "agent": AGENTS.name(config.agent),
        "env": acting.env.id,
        "seed": flags.seed,
    }


def _load(config: Config) -> Dataset | None:
    """The data set of an offline agent."""
    if config.data is None:
        return None
    data = config.data
    return load_dataset(data.dataset, download=data.download, cache=data.cache)


def _acting(config: Config, dataset: Dataset | None) -> Acting:
    return Acting(
        env=_environment(config, dataset),
        seed=config.run.seed,
        max_steps=config.environment.max_steps,
        check_task=not config.environment.unchecked_task,
    )


def _environment(config: Config, dataset: Dataset | None) -> EnvSpec:
    env = config.environment.env
    if dataset is None or config.data is None:
        assert env is not None
        return EnvSpec(env)
    whose = f"data set {config.data.dataset}"
    return acting_environment(env, dataset.env_spec, whose, "was collected in")


def _given_model(
    data: DataSetFlags | None, spec: EnvSpec, device: torch.device
) -> DynamicsModel | None:
    """That of --model, if it is one of this environment."""
    if not isinstance(data, DataFlags) or data.model is None:
        return None
    model, env = DynamicsModel.load(data.model, device), make_env(spec)
    check_model(model, data.model, spec, env)
    planned_task(get_task(spec), model)
    env.close()
    return model


def _require_unchanged(config: Config, dataset: Dataset | None) -> None:
    if config.run.resume and dataset is not None and config.data is not None:
        require_unchanged(config.run.out, config.data.dataset, dataset)


def _agreeing(
    settings: AgentSettings, acting: Acting, dataset: Dataset | None, given: DynamicsModel | None
) -> Dataset | None:
    """The data set, held against the task; its rewards are not where a model learns the reward."""
    if dataset is None or not acting.check_task:
        return dataset
    learned = getattr(getattr(settings, "model", None), "learn_reward", "auto") == "yes"
    learned = learned or (given is not None and given.learn_reward)
    in_model = getattr(settings, "needs_model", True)
    task = task_of(acting.env) if in_model else find_task(acting.env)
    return agreeing(dataset, task, reward=not learned)


def _trained_model(config: Config, device: torch.device) -> DynamicsModel:
    """That in OUT/model, trained now or before the run was interrupted."""
    folder = config.run.out / "model"
    if not (folder / SUMMARY).is_file():
        train_model.run(_model_training(config, folder))
    return DynamicsModel.load(folder, device)


def _model_training(config: Config, folder: Path) -> train_flags.Config:
    """The flags of train-model by which an offline agent has its model trained."""
    assert config.data is not None
    assert isinstance(config.agent, MOPOSettings)
    size, flags = config.agent.model, config.run
    sizes = {f.name: getattr(size, f.name) for f in fields(size) if f.name != "model_steps"}
    return train_flags.Config(
        run=train_flags.RunFlags(
            out=folder,
            resume=(folder / CONFIG).is_file(),
            seed=flags.seed,
            device=flags.device,
            precision=flags.precision,
        ),
        data=train_flags.DataFlags(
            dataset=config.data.dataset,
            cache=config.data.cache,
            env=config.environment.env,
            unchecked_task=config.environment.unchecked_task,
        ),
        model=train_flags.ModelFlags(**sizes),
        objective=config.agent.objective,
        fit=FitSettings(steps=size.model_steps),
    )


def resolved(config: Config, spec: EnvSpec, dataset: Dataset | None = None) -> dict[str, Any]:
    """What decides a run's result, as config.yaml holds it; what the data are with `dataset`."""
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
        what = "the model is fitted to all data"
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
