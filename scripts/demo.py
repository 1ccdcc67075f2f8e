"""`demo`: the whole tour, offline: collect, train, evaluate, plan in the real simulation."""

import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from mbrl_bilevel.agents.main_script import check_main_script
from mbrl_bilevel.data.dataset_folder import datasets_in
from mbrl_bilevel.evaluation import figures
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.scripts import collect, eval_agent, eval_model, train_model
from mbrl_bilevel.scripts.command import Outcome, run_folder_hint, say
from mbrl_bilevel.scripts.flag_checks import make_folder
from mbrl_bilevel.scripts.flags import collect as collect_flags
from mbrl_bilevel.scripts.flags import eval_agent as eval_agent_flags
from mbrl_bilevel.scripts.flags import eval_model as eval_model_flags
from mbrl_bilevel.scripts.flags import train_model as train_model_flags
from mbrl_bilevel.scripts.flags.demo import Config
from mbrl_bilevel.training.settings import FitSettings


@dataclass(frozen=True)
class Stop:
    """One environment of the tour: its data, the training budget and the planner's settings."""

    env: str
    policy: Literal["random", "medium"]
    steps: int
    objectives: tuple[Literal["nll", "two_means"], ...]
    hidden: tuple[int, ...]
    gradient_steps: int
    episodes: int
    max_steps: int
    planner: dict[str, Any]
    what: str


TOUR = (
    Stop(
        env="InvertedPendulum-v5",
        policy="random",
        steps=5_000,
        objectives=("nll",),
        hidden=(128, 128),
        gradient_steps=2_000,
        episodes=2,
        max_steps=1_000,
        planner={},
        what="a pole balanced by planning in a model that has only seen it fall",
    ),
    Stop(
        env="HalfCheetah-v5",
        policy="medium",
        steps=25_000,
        objectives=("nll", "two_means"),
        hidden=(200, 200),
        gradient_steps=2_500,
        episodes=3,
        max_steps=300,
        planner={"prior": "medium"},
        what="a cheetah that runs by planning around the medium policy, in a model of its data",
    ),
)


def run(config: Config) -> Outcome:
    check_main_script()
    began = time.monotonic()
    out = config.out or next(p for i in count(1) if not (p := Path(f"runs/demo-{i}")).exists())
    make_folder("--out", out, empty=True)
    say(run_folder_hint(out))
    with datasets_in(out / "datasets"):
        found = {stop.env: _visit(stop, out, config) for stop in TOUR}
    seconds = time.monotonic() - began
    picture = figures.save(figures.tour(found), out / "demo.png")
    return Outcome(
        {"run": str(out), "seconds": seconds, "seed": config.seed, "figure": str(picture), **found},
        _text(found, out, picture, seconds),
    )


def _visit(stop: Stop, out: Path, config: Config) -> dict[str, Any]:
    """Collects in one environment; trains, evaluates and plans by each objective."""
    common: dict[str, Any] = {"seed": config.seed, "device": config.device}
    name = stop.env.split("-")[0].lower()
    dataset = f"{name}/{stop.policy}-v0"
    say(f"\n{stop.env}: {stop.what}")
    collect.run(
        collect_flags.Config(
            env=stop.env, policy=stop.policy, steps=stop.steps, dataset=dataset, **common
        )
    )
    behaviour = _play_behaviour(stop, out / name, common)
    models = {}
    for objective in stop.objectives:
        folder = out / name / objective
        _train(stop, objective, dataset, folder, common)
        evaluated = eval_model.run(eval_model_flags.Config(model=(folder,), **common))
        say(evaluated.text)
        models[objective] = {"model": evaluated.results, "mpc": _plan(stop, folder, common)}
    return {"behaviour": behaviour, "models": models}


def _play_behaviour(stop: Stop, out: Path, common: dict[str, Any]) -> dict[str, Any]:
    """Returns of the policy that collected the data."""
    flags = eval_agent_flags.Config(
        agent="policy",
        policy=stop.policy,
        env=stop.env,
        episodes=5,
        max_steps=stop.max_steps,
        out=out,
        **common,
    )
    return eval_agent.run(flags).results


def _train(stop: Stop, objective: str, dataset: str, folder: Path, common: dict[str, Any]) -> None:
    train_model.run(
        train_model_flags.Config(
            run=train_model_flags.RunFlags(out=folder, **common),
            data=train_model_flags.DataFlags(dataset=dataset),
            model=train_model_flags.ModelFlags(hidden=stop.hidden),
            objective=OBJECTIVES.settings(objective)(),
            fit=FitSettings(steps=stop.gradient_steps),
        )
    )


def _plan(stop: Stop, model: Path, common: dict[str, Any]) -> dict[str, Any]:
    """Returns of planning in a model."""
    flags = eval_agent_flags.Config(
        model=model,
        episodes=stop.episodes,
        max_steps=stop.max_steps,
        planning=stop.planner,
        **common,
    )
    return eval_agent.run(flags).results


def _text(found: dict[str, Any], out: Path, picture: Path, seconds: float) -> str:
    lines = [
        f"{'environment':<20} {'objective':<10} {'MSE':>8} {'NLL':>7} {'R2':>7} {'MPC return':>11}"
        f" {'data policy':>12} {'steps':>6}"
    ]
    for env, visited in found.items():
        policy = visited["behaviour"]["mean_return"]
        for objective, result in visited["models"].items():
            model, mpc = result["model"], result["mpc"]
            lines.append(
                f"{env:<20} {objective:<10} {model['rmse'] ** 2:>8.5f} {model['nll']:>7.3f} "
                f"{model['r2']:>7.4f} {mpc['mean_return']:>11.1f} {policy:>12.1f} "
                f"{max(mpc['lengths']):>6}"
            )
    lines += [
        f"done in {seconds:.0f} s",
        f"look next: {picture}, the figures/ folders beside it, and "
        f"tensorboard --logdir {quote(str(out))}",
        "then: mbrl-bilevel train-model on data of your own (mbrl-bilevel collect, or a Minari id)",
    ]
    return "\n".join(lines)
