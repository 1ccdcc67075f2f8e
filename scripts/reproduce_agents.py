"""Learning curves of any agents on any tasks, beside published ones.

for each environment, agent and seed
    train-agent with the agent's defaults and its preset for the task, in a folder of its own;
    what is finished is not run again, what was interrupted goes on
OUT/curves.csv: a row for each evaluation; OUT/ENV.png: the curves of an environment
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbrl_bilevel.agents.behaviour import load_policy
from mbrl_bilevel.agents.presets import preset, updated
from mbrl_bilevel.agents.settings import AGENTS, AgentSettings
from mbrl_bilevel.data.dataset_folder import dataset_folder, datasets_in
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.scripts import collect, train_agent
from mbrl_bilevel.scripts.command import Outcome, say
from mbrl_bilevel.scripts.curve_table import Rows, draw, table, write_rows
from mbrl_bilevel.scripts.flag_checks import make_folder
from mbrl_bilevel.scripts.flags import collect as collect_flags
from mbrl_bilevel.scripts.flags import train_agent as flags
from mbrl_bilevel.scripts.flags.reproduce import Config
from mbrl_bilevel.scripts.kept_runs import refuse_another_run
from mbrl_bilevel.scripts.logged_evaluations import EVALUATED, TRAINED, logged_returns
from mbrl_bilevel.scripts.published_curves import Published, published_curves
from mbrl_bilevel.training.run_folder import CONFIG, METRICS, SUMMARY

TRANSITIONS = 100_000  # of the medium policy, for agents that learn offline


@dataclass(frozen=True)
class Trial:
    """One agent on one task, by one objective (None: the agent's own), with one seed."""

    env: str
    agent: str
    objective: str | None
    seed: int
    settings: AgentSettings

    @property
    def name(self) -> str:
        """What its curve is called."""
        return self.agent if self.objective is None else f"{self.agent}-{self.objective}"

    def folder(self, out: Path) -> Path:
        """Its run folder: OUT/ENV/AGENT-SEED or OUT/ENV/AGENT-OBJECTIVE-SEED."""
        return out / self.env / f"{self.name}-{self.seed}"


def reproduce(config: Config) -> Outcome:
    """Trains every agent on every environment, `seeds` times, and draws what is there.

    Raises:
        InputError: no --out, an unknown agent, objective or environment, an offline agent in an
            environment without a shipped medium policy, published curves that cannot be read, or a
            folder that holds another run, or one of other settings.
    """
    if config.out is None:
        raise InputError("reproduce agents: name a folder for its runs by --out")
    trials = _trials(config)
    published: dict[str, Published] = {
        env: published_curves(config.published, env) for env in config.envs
    }
    for trial in trials:
        values = train_agent.resolved(_run(config, trial, config.out), EnvSpec(trial.env))
        refuse_another_run(trial.folder(config.out), values)
    make_folder("--out", config.out)
    with datasets_in(config.data or config.out / "datasets"):
        for trial in trials:
            _train(config, trial, config.out)
            # After each, so that a long table can be looked at while it grows.
            rows = _rows(trials, config.out)
            write_rows(rows, config.out / "curves.csv")
    _say_without_rows(trials, rows)
    figures = {env: draw(env, rows, published[env], config.out) for env in config.envs}
    text = "\n\n".join(table(env, rows, published[env]) for env in config.envs)
    found = {"curves": rows, "figures": {env: str(path) for env, path in figures.items()}}
    drawn = "\n".join(f"figure: {path}" for path in figures.values())
    return Outcome(found, f"{text}\n{drawn}\ncurves: {config.out / 'curves.csv'}")


def _trials(config: Config) -> list[Trial]:
    """All of them, checked before the first is trained."""
    found = []
    for env in config.envs:
        make_env(env).close()
        for agent in config.agents:
            settings = preset(AGENTS.settings(agent), env)
            if getattr(settings, "offline", False):
                load_policy(env, "medium")
            for objective in config.objectives or (None,):
                chosen = _with(settings, objective, config.steps)
                for seed in range(config.seed, config.seed + config.repetitions):
                    found.append(Trial(env, agent, objective, seed, chosen))
    return found


def _with(settings: AgentSettings, objective: str | None, steps: int | None) -> AgentSettings:
    changes: dict[str, Any] = {} if steps is None else {"steps": steps}
    if objective is not None:
        if objective not in OBJECTIVES:
            raise InputError(f"--objectives {objective}: choose from {', '.join(OBJECTIVES.names)}")
        # Objectives are compared in one model, and some of them have no constant noise to learn.
        changes |= {"objective": objective, "noise": "input"}
    return updated(settings, **changes)


def _train(config: Config, trial: Trial, out: Path) -> None:
    if (trial.folder(out) / SUMMARY).is_file():
        return
    say(f"{trial.env}, {trial.name}, seed {trial.seed}")
    if _offline(trial):
        _collect_medium(trial.env)
    train_agent.run(_run(config, trial, out))


def _run(config: Config, trial: Trial, out: Path) -> flags.Config:
    """The flags of train-agent; a run that is there goes on."""
    folder = trial.folder(out)
    return flags.Config(
        run=flags.RunFlags(
            out=folder,
            seed=trial.seed,
            device=config.device,
            resume=(folder / CONFIG).is_file(),
        ),
        environment=flags.EnvironmentFlags(env=trial.env),
        data=flags.DataFlags(dataset=_medium(trial.env)) if _offline(trial) else None,
        agent=trial.settings,
        evaluation=flags.EvaluationFlags(evaluate_every=_between_evaluations(trial.settings)),
    )


def _offline(trial: Trial) -> bool:
    return bool(getattr(trial.settings, "offline", False))


def _between_evaluations(settings: AgentSettings) -> int:
    return min(flags.EvaluationFlags.evaluate_every, max(1, settings.steps // 20))


def _medium(env: str) -> str:
    """The id of the medium policy's data."""
    return f"{env.split('-')[0].lower()}/medium-100k-v0"


def _collect_medium(env: str) -> None:
    """Collects the medium policy's data if they are not there."""
    dataset = _medium(env)
    try:
        dataset_folder(dataset)
    except InputError:
        collect.run(
            collect_flags.Config(
                env=env, policy="medium", steps=TRANSITIONS, dataset=dataset, seed=0
            )
        )


def _rows(trials: Sequence[Trial], out: Path) -> Rows:
    """Every evaluation so far, by the order of the trials.

    PETS plans in its only environment: the returns of its training episodes are its evaluation.
    """
    rows = []
    for trial in trials:
        file = trial.folder(out) / METRICS
        lines = (
            [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        )
        key = EVALUATED if getattr(trial.settings, "evaluates_policy", True) else TRAINED
        run = {"env": trial.env, "agent": trial.name, "seed": trial.seed}
        for step, value, seconds in logged_returns(lines, key):
            found = {"step": step, "return": round(value, 1), "seconds": round(seconds)}
            rows.append(run | found)
    return rows


def _say_without_rows(trials: Sequence[Trial], rows: Rows) -> None:
    """Names the trainings that no table shows."""
    shown = {(row["env"], row["agent"], row["seed"]) for row in rows}
    for trial in trials:
        if (trial.env, trial.name, trial.seed) not in shown:
            say(f"{trial.env}, {trial.name}, seed {trial.seed}: no evaluation, or no whole episode")
