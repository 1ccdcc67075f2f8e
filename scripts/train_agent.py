"""`train-agent`: a policy, trained online in the real environment or offline from a data set."""

import time
from dataclasses import asdict, astuple, fields, replace
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
from mbrl_bilevel.agents.presets import by_name_of, preset, updated
from mbrl_bilevel.agents.setting_groups import RolloutLength
from mbrl_bilevel.agents.settings import AGENTS, AgentSettings, MOPOSettings, SACSettings
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.minari import Dataset, load_dataset
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.tasks import get_task, planned_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts import train_model
from mbrl_bilevel.scripts.acting_environment import acting_environment, agreeing
from mbrl_bilevel.scripts.agent_flags import SETTINGS, Config
from mbrl_bilevel.scripts.command import (
    Outcome,
    fast_products,
    how_to_watch,
    resolve_device,
    say,
)
from mbrl_bilevel.scripts.objective_flags import ObjectiveFlags
from mbrl_bilevel.scripts.training_data import described, require_unchanged
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.run_folder import SUMMARY, RunFolder
from mbrl_bilevel.warning_lines import warnings_in_one_line

SHARED = frozenset({"elites", *(f.name for f in fields(ObjectiveFlags))})  # flags of several agents


def run(config: Config) -> Outcome:
    try:
        with warnings_in_one_line():
            return _run(config)
    except (TrainingDiverged, WorkerDied) as error:
        raise SystemExit(f"mbrl-bilevel train-agent: {error}") from None


def _run(config: Config) -> Outcome:
    device = resolve_device(config.device)
    torch.set_num_threads(config.threads)
    fast_products()
    if config.agent != "pets":  # whose episodes are its evaluation
        check_main_script()
    _check(config)
    dataset = _dataset(config)
    spec = _environment(config, dataset)
    settings = _settings(config, spec)
    acting = Acting(
        env=spec,
        seed=config.seed,
        max_steps=config.max_steps,
        check_task=not config.unchecked_task,
    )
    given = _given_model(config, spec, device)
    check_agent(settings, acting, dataset=dataset, model=given)
    if config.resume and dataset is not None and config.dataset is not None:
        require_unchanged(config.out, config.dataset, dataset)
    resolved = _resolved(config, spec, settings, dataset)
    if dataset is not None and not config.unchecked_task:
        learned = config.learn_reward == "yes" or (given is not None and given.learn_reward)
        dataset = agreeing(dataset, task_of(spec), reward=not learned)
    # before there is a folder: memory may not be enough
    if isinstance(settings, MOPOSettings):
        assert dataset is not None
        check_memory(settings, acting, dataset, given, device)
    else:
        learner = make_agent(settings, acting, device=device)
    with RunFolder(config.out, resolved, config.resume) as folder:
        say(how_to_watch(config.out))
        if isinstance(settings, MOPOSettings):
            model = given or DynamicsModel.load(_trained_model(config, settings), device)
            learner = make_agent(settings, acting, device=device, dataset=dataset, model=model)
        began = time.monotonic()
        figures = learn(
            learner,
            folder,
            PolicyEvaluation(spec, config.seed, config.episodes, config.max_steps),
            steps=settings.steps,
            log_every=config.log_every,
            evaluate_every=config.evaluate_every,
            resume=config.resume,
            checkpoint_seconds=config.checkpoint_seconds,
        )
        found: dict[str, Any] = {
            "run": str(config.out),
            "steps": settings.steps,
            "seconds": round(time.monotonic() - began, 2),
            "mean_return": figures.get("evaluation/return"),
            "std_return": figures.get("evaluation/return_std"),
            "agent": config.agent,
            "env": spec.id,
            "seed": config.seed,
        }
        folder.summarize(found)
    return Outcome(found, _text(config, spec.id, found))


def _check(config: Config) -> None:
    if config.agent == "mopo" and config.dataset is None:
        raise InputError("--agent mopo learns from a data set: name one by --dataset")
    if config.agent != "mopo" and config.dataset is not None:
        raise InputError(
            f"--agent {config.agent} learns online: leave --dataset out, or choose --agent mopo"
        )
    if config.agent != "mopo" and config.model is not None:
        raise InputError(
            f"--agent {config.agent} fits a model of its own: leave --model out, or choose mopo"
        )
    if config.agent != "mopo" and config.env is None:
        raise InputError(f"--agent {config.agent}: name the environment by --env")


def _dataset(config: Config) -> Dataset | None:
    if config.dataset is None:
        return None
    return load_dataset(config.dataset, download=config.download)


def _environment(config: Config, dataset: Dataset | None) -> EnvSpec:
    if dataset is None:
        assert config.env is not None
        return EnvSpec(config.env)
    whose = f"data set {config.dataset}"
    return acting_environment(config.env, dataset.env_spec, whose, "was collected in")


def _settings(config: Config, spec: EnvSpec) -> AgentSettings:
    """The preset of agent and task, with every flag that was given in its place.

    Flags that are not None without being given are ignored by agents that lack them.
    """
    start = preset(AGENTS[config.agent], spec.id)
    if not isinstance(start, SACSettings):
        start = replace(start, objective=config.spec())
    known = by_name_of(start)
    values = {n: v for n in SETTINGS if (v := getattr(config, n, None)) is not None}
    strict = {f.name for f in fields(Config) if f.default is None} - SHARED
    given = {n: v for n, v in values.items() if n in known or n in strict}
    if "rollout_length" in given:
        given["rollout_length"] = RolloutLength(*given["rollout_length"])
    return updated(start, **given)


def _given_model(config: Config, spec: EnvSpec, device: torch.device) -> DynamicsModel | None:
    """That of --model, if it is one of this environment."""
    if config.model is None:
        return None
    model, env = DynamicsModel.load(config.model, device), make_env(spec)
    check_model(model, config.model, spec, env)
    planned_task(get_task(spec), model)
    env.close()
    return model


def _trained_model(config: Config, settings: MOPOSettings) -> Path:
    """The folder of a model that is trained now, or was when the run was interrupted."""
    folder = config.out / "model"
    if not (folder / SUMMARY).is_file():
        assert config.dataset is not None
        own = {f.name: getattr(config, f.name) for f in fields(ObjectiveFlags)}
        own |= {name: getattr(config, name) for name in ("members", "elites", "hidden", "env")}
        own |= {name: getattr(config, name) for name in ("learn_reward", "unchecked_task")}
        own |= {"seed": config.seed, "device": config.device, "dataset": config.dataset}
        resume = (folder / "config.yaml").is_file()
        steps = settings.model.model_steps
        train_model.run(train_model.Config(out=folder, steps=steps, resume=resume, **own))
    return folder


def _resolved(
    config: Config, spec: EnvSpec, settings: AgentSettings, dataset: Dataset | None
) -> dict[str, Any]:
    """What decides a run's result, as config.yaml holds it."""
    ignored = ("json", "resume", "download", "device", "checkpoint_seconds", "out")
    values = asdict(config) | {"env": spec.id, "environment": spec.to_plain()}
    values |= by_name_of(settings)
    if dataset is not None and config.dataset is not None:
        values |= described(config.dataset, dataset)
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
    plain = {k: astuple(v) if isinstance(v, RolloutLength) else v for k, v in plain.items()}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}
    return {k: v for k, v in plain.items() if k not in ignored}


def _text(config: Config, env_id: str, found: dict[str, Any]) -> str:
    out = quote(str(config.out))
    if found["mean_return"] is None:
        again = f"--agent mpc --model {out}"
        what = "the model is fitted to everything that was seen"
    else:
        again = f"--agent policy --model {out}"
        what = (
            f"return {found['mean_return']:.1f} +- {found['std_return']:.1f} "
            f"({config.episodes} episodes)"
        )
    again += f" --env {env_id}" if ":" in env_id else ""
    again += " --episodes 10"
    if config.max_steps is not None:
        again += f" --max-steps {config.max_steps}"
    return f"{what}\nnext: mbrl-bilevel eval-agent {again}"
