"""`demo`: the whole tour, offline: collect, train, judge, plan in the real simulation."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

from mbrl_bilevel.evaluation import figures
from mbrl_bilevel.scripts import collect, eval_agent, eval_model, train_model
from mbrl_bilevel.scripts.command import Command, Outcome, say


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of demo."""

    out: Path | None = None
    """Everything goes into this new folder; default: the first of runs/demo-1, demo-2, ..."""


@dataclass(frozen=True)
class Stop:
    """One environment of the tour: its data, the training budget and the planner's settings."""

    env: str
    policy: Literal["random", "medium"]
    steps: int
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
        gradient_steps=1_500,
        episodes=2,
        max_steps=1_000,
        planner={"horizon": 20, "samples": 64, "iterations": 2},
        what="a pole balanced by planning in a model that has only seen it fall",
    ),
    Stop(
        env="HalfCheetah-v5",
        policy="medium",
        steps=25_000,
        gradient_steps=4_000,
        episodes=2,
        max_steps=150,
        planner={"horizon": 20, "samples": 96, "iterations": 3},
        what="a cheetah run by planning in a model of a mediocre runner's data",
    ),
)


def run(config: Config) -> Outcome:
    began = time.monotonic()
    out = config.out or next(p for i in count(1) if not (p := Path(f"runs/demo-{i}")).exists())
    say(f"run folder: {out}   watch it: tensorboard --logdir {out}")
    with _datasets_in(out / "datasets"):
        found = {stop.env: _visit(stop, out, config) for stop in TOUR}
    seconds = time.monotonic() - began
    picture = figures.save(figures.tour(found), out / "demo.png")
    return Outcome(
        {"run": str(out), "seconds": seconds, "seed": config.seed, "figure": str(picture), **found},
        _text(found, out, picture, seconds),
    )


def _visit(stop: Stop, out: Path, config: Config) -> dict[str, Any]:
    """Collects, trains, judges and plans in one environment; the figures of each step."""
    common: dict[str, Any] = {"seed": config.seed, "device": config.device}
    name = stop.env.split("-")[0].lower()
    dataset, model = f"{name}/{stop.policy}-v0", out / name
    say(f"\n{stop.env}: {stop.what}")
    collected = collect.run(
        collect.Config(
            env=stop.env, policy=stop.policy, steps=stop.steps, dataset=dataset, **common
        )
    )
    trained = train_model.run(
        train_model.Config(dataset=dataset, out=model, steps=stop.gradient_steps, **common)
    )
    judged = eval_model.run(eval_model.Config(model=model, **common))
    say(judged.text)
    acted = eval_agent.run(
        eval_agent.Config(
            model=model, episodes=stop.episodes, max_steps=stop.max_steps, **stop.planner, **common
        )
    )
    behaviour = eval_agent.run(
        eval_agent.Config(
            agent="policy",
            policy=stop.policy,
            env=stop.env,
            episodes=5,
            max_steps=stop.max_steps,
            out=model,
            **common,
        )
    )
    return {
        "collect": collected.figures,
        "train": trained.figures,
        "model": judged.figures,
        "mpc": acted.figures,
        "behaviour": behaviour.figures,
    }


@contextmanager
def _datasets_in(folder: Path) -> Iterator[None]:
    """Keeps the demo's data sets beside its results, apart from the user's own."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def _text(found: dict[str, Any], out: Path, picture: Path, seconds: float) -> str:
    lines = [f"{'environment':<22} {'model NLL':>9} {'R2':>7} {'data policy':>12} {'MPC':>9}"]
    for env, figure in found.items():
        model, steps = figure["model"], max(figure["mpc"]["lengths"])
        lines.append(
            f"{env:<22} {model['nll']:>9.3f} {model['r2']:>7.4f} "
            f"{figure['behaviour']['mean_return']:>12.1f} {figure['mpc']['mean_return']:>9.1f}"
            f"   (mean return over {steps} steps)"
        )
    lines += [
        f"done in {seconds:.0f} s",
        f"look next: {picture}, the figures/ folders beside it, and tensorboard --logdir {out}",
        "then: mbrl-bilevel collect --help, and your own data set with mbrl-bilevel train-model",
    ]
    return "\n".join(lines)
