"""Learning curves of this project's soft actor-critic beside Stable-Baselines3's."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.policy_evaluation import play
from mbrl_bilevel.agents.presets import preset
from mbrl_bilevel.agents.settings import SACSettings
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.figures import save
from mbrl_bilevel.evaluation.learning_curves import Curve, learning_curves
from mbrl_bilevel.files import write_text
from mbrl_bilevel.products import plain_products
from mbrl_bilevel.scripts import train_agent
from mbrl_bilevel.scripts.command import Outcome, say
from mbrl_bilevel.scripts.flag_checks import make_folder
from mbrl_bilevel.scripts.flags import train_agent as flags
from mbrl_bilevel.scripts.flags.reproduce import Config
from mbrl_bilevel.training.run_folder import CONFIG, METRICS, SUMMARY

EPISODES, POINTS = 10, 20  # of an evaluation; evaluations of a run
NAMES = {"ours": "mbrl-bilevel", "peer": "Stable-Baselines3"}


def reproduce(config: Config) -> Outcome:
    """Trains both from the same seeds, batch sizes, rates, networks and random starts.

    Every 20th of the way both policies play the same 10 episodes by their mean action.
    """
    steps, env = config.steps or 50_000, config.envs[0]
    every = max(1, steps // POINTS)
    if config.out is None:
        raise InputError("reproduce sac: name a folder for its runs by --out")
    if find_spec("stable_baselines3") is None:
        raise InputError("reproduce sac compares with stable-baselines3: install it")
    make_env(env).close()
    make_folder("--out", config.out)
    train: dict[str, Callable[..., dict[str, Any]]] = {"ours": _ours, "peer": _peer}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in train}
    for seed in range(config.seed, config.seed + config.repetitions):
        for name in train:
            kept = config.out / f"{name}-{seed}.json"
            if not kept.is_file():
                say(f"{NAMES[name]}, {env}, seed {seed}")
                found = train[name](config, env, seed, steps, every)
                write_text(kept, json.dumps({"env": env, "steps": steps} | found))
            run = json.loads(kept.read_text())
            if (run["env"], run["steps"]) != (env, steps):
                raise InputError(f"{kept} holds another run: choose another --out")
            runs[name].append(run)
    curves = {NAMES[n]: [_curve(run) for run in found] for n, found in runs.items()}
    title = f"soft actor-critic on {env}, {EPISODES} episodes a point"
    figure = save(learning_curves(curves, title), config.out / "curves.png")
    results = {
        "env": env,
        "steps": steps,
        "seeds": config.repetitions,
        "seed": config.seed,
        "runs": runs,
    }
    return Outcome(results, f"{_table(curves, runs)}\nfigure: {figure}")


def _ours(config: Config, env: str, seed: int, steps: int, every: int) -> dict[str, Any]:
    assert config.out is not None
    out = config.out / f"run-{seed}"
    outcome = train_agent.run(
        flags.Config(
            run=flags.RunFlags(
                out=out, seed=seed, device=config.device, log_every=every,
                resume=(out / CONFIG).is_file(),
            ),
            environment=flags.EnvironmentFlags(env=env),
            agent=replace(preset(SACSettings, env), steps=steps),
            evaluation=flags.EvaluationFlags(evaluate_every=every, episodes=EPISODES),
        )
    )  # fmt: skip
    assert (out / SUMMARY).is_file()
    lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    curve = {str(e["step"]): e["evaluation/return"] for e in lines if "evaluation/return" in e}
    return {"curve": curve, "seconds": outcome.results["seconds"]}


def _peer(config: Config, env: str, seed: int, steps: int, every: int) -> dict[str, Any]:
    from stable_baselines3 import SAC

    torch.set_num_threads(1)
    plain_products()
    start = preset(SACSettings, env).start_steps
    agent = SAC("MlpPolicy", env, seed=seed % 2**32, device="cpu", learning_starts=start)
    curve: dict[str, float] = {}
    seconds = 0.0
    for step in range(every, steps + 1, every):
        began = time.monotonic()
        agent.learn(every, reset_num_timesteps=False, progress_bar=False)
        seconds += time.monotonic() - began
        curve[str(step)] = float(
            np.mean(play(env, seed, EPISODES, BehaviourPolicy(_weights(agent.actor), {})))
        )
        say(f"  step {step}: return {curve[str(step)]:.1f}")
    return {"curve": curve, "seconds": round(seconds, 2)}


def _weights(actor: Any) -> dict[str, np.ndarray]:
    """The peer's actor in the layout of `BehaviourPolicy`."""
    first, second = actor.latent_pi[0], actor.latent_pi[2]
    layers = {"1": first, "2": second, "_mu": actor.mu, "_log_std": actor.log_std}
    found = {f"w{k}": layer.weight for k, layer in layers.items()}
    found |= {f"b{k}": layer.bias for k, layer in layers.items()}
    box = actor.action_space
    return {k: v.detach().cpu().numpy() for k, v in found.items()} | {
        "action_low": box.low,
        "action_high": box.high,
    }


def _curve(run: dict[str, Any]) -> Curve:
    return {int(step): value for step, value in run["curve"].items()}


def _table(curves: dict[str, list[Curve]], runs: dict[str, list[dict[str, Any]]]) -> str:
    """Returns by step: mean over seeds, lowest and highest."""
    shared = sorted(set.intersection(*(set(c) for found in curves.values() for c in found)))
    lines = [f"{'step':>8}" + "".join(f"{name:>34}" for name in curves)]
    for step in shared[:: max(1, len(shared) // 5)] + shared[-1:]:
        row = f"{step:>8}"
        for found in curves.values():
            values = [curve[step] for curve in found]
            row += f"{np.mean(values):>14.1f} ({min(values):>7.1f} to {max(values):>7.1f})"
        lines.append(row)
    means = {name: np.mean([list(c.values()) for c in found]) for name, found in curves.items()}
    lines.append("mean over the curve: " + ", ".join(f"{k} {v:.1f}" for k, v in means.items()))
    seconds = {NAMES[k]: np.mean([r["seconds"] for r in found]) for k, found in runs.items()}
    lines.append("seconds: " + ", ".join(f"{k} {v:.0f}" for k, v in seconds.items()))
    return "\n".join(lines)
