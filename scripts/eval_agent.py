"""`eval-agent`: returns of an agent in the real simulation."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import yaml
from tqdm import tqdm

from mbrl_bilevel.agents.episode import Episode
from mbrl_bilevel.agents.parallel import WorkerDied, play_episodes
from mbrl_bilevel.agents.planner_settings import DEFAULTS, planner_settings
from mbrl_bilevel.agents.recipe import MPCRecipe, PlayEpisode, PolicyRecipe, Recipe
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.tasks import TASKS
from mbrl_bilevel.envs.video import mujoco_gl, rendering_backend
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.returns import ReturnSummary
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts.command import Command, Outcome, resolve_device, say

CONFIG, SUMMARY, VIDEO = "config.yaml", "summary.json", "episode-0.mp4"


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of eval-agent."""

    agent: Literal["mpc", "policy"] = "mpc"
    """mpc plans with --model; policy is one of the shipped ones, see --policy."""
    model: Path | None = None
    """A run folder of train-model."""
    env: str | None = None
    """The environment to act in, e.g. Hopper-v5; default: the one the model was trained for."""
    episodes: int = 5
    """Episodes to run; number i is the same for a seed, however many there are."""
    max_steps: int | None = None
    """End episodes after so many steps; default: the environment's own limit."""
    planner: Literal["icem"] = "icem"
    """How mpc chooses its actions."""
    horizon: int | None = None
    """Steps that the planner looks ahead; default of this and the next: measured, by task."""
    samples: int | None = None
    """Action sequences of the planner's first iteration."""
    iterations: int | None = None
    """Rounds of sampling and refitting per step."""
    elites: int | None = None
    """Best sequences that each round is refitted to."""
    beta: float | None = None
    """Exponent of the noise's spectrum f^-beta; 0 is white, larger is smoother."""
    init_std: float | None = None
    """First standard deviation of sampled actions, in half-widths of the action bounds."""
    discount: float | None = None
    """Weight of each later reward in the planner's returns relative to the one before."""
    pessimism: float | None = None
    """Standard deviations over the model's members taken off the mean of their returns."""
    caution: float | None = None
    """The most that an imagined step costs for being far from the model's data, in reward units."""
    policy: str = "medium"
    """The shipped policy of --agent policy: medium, expert, random, .... It acts by its mean."""
    video: bool = False
    """Write a video (mp4) of the first episode."""
    workers: int | None = None
    """Episodes that run at once, each in a process of its own; default: the number of cores."""
    threads: int = 1
    """torch threads of each process; the last digits of results may depend on them."""
    out: Path | None = None
    """A numbered folder in this one takes results and video; default: the model's folder."""


def run(config: Config) -> Outcome:
    _check_flags(config)
    env_id = _env_id(config)
    recipe = _recipe(config, env_id)
    limit = _check_agent(config, recipe, env_id)
    backend = rendering_backend() if config.video else None
    folder = _numbered_folder(config, env_id, recipe)
    say(f"results: {folder}   {config.episodes} episodes of {env_id}")
    video = folder / VIDEO if config.video else None
    play = PlayEpisode(recipe, env_id, config.seed, config.max_steps, video)
    started = time.perf_counter()
    finished: dict[int, Episode] = {}

    def figures() -> dict[str, Any]:
        return _figures(config, env_id, folder, finished, time.perf_counter() - started)

    try:
        with mujoco_gl(backend):
            _play_all(config, play, limit, finished)
    except KeyboardInterrupt:
        say(f"interrupted: {len(finished)} of {config.episodes} episodes are finished")
        if finished:
            say(_text(figures()))
        raise
    except WorkerDied as error:
        raise SystemExit(f"mbrl-bilevel eval-agent: {error}") from None
    found = figures()
    (folder / SUMMARY).write_text(json.dumps(found, indent=2) + "\n")
    return Outcome(found, _text(found))


def _check_flags(config: Config) -> None:
    for name in ("episodes", "max_steps", "workers", "threads"):
        value = getattr(config, name)
        if value is not None and value < 1:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} {value}: it must be at least 1")
    if config.seed < 0:
        raise InputError(f"--seed {config.seed}: it must not be negative")
    if config.agent == "mpc" and config.model is None:
        raise InputError("--agent mpc needs a model: name a run folder of train-model by --model")
    if config.agent == "policy" and config.model is not None:
        raise InputError("--agent policy runs a shipped policy without a model: leave --model out")
    if config.agent == "policy" and config.env is None:
        raise InputError("--agent policy: name the environment by --env, e.g. --env Hopper-v5")


def _recipe(config: Config, env_id: str) -> Recipe:
    if config.model is None:
        return PolicyRecipe(config.policy)
    planner = planner_settings(env_id, **{name: getattr(config, name) for name in DEFAULTS})
    return MPCRecipe(config.model, planner, resolve_device(config.device).type)


def _env_id(config: Config) -> str:
    if config.env is not None:
        return config.env
    assert config.model is not None
    env_id = DynamicsModel.load(config.model).env_id
    if env_id is None:
        raise InputError(
            f"the model in {config.model} does not say its environment: name it by --env"
        )
    if ":" in env_id:  # gymnasium would import that module, on the word of a file
        raise InputError(
            f"the model in {config.model} names the environment {env_id!r}, which would import "
            "code: if you trust it, name it by --env"
        )
    return env_id


def _check_agent(config: Config, recipe: Recipe, env_id: str) -> int:
    """Makes the agent once, so that bad input shows before processes start; the step limit."""
    env = make_env(env_id)
    recipe.agent(env, env_id, config.seed)
    limits = [config.max_steps, env.spec.max_episode_steps if env.spec is not None else None]
    env.close()
    known = [limit for limit in limits if limit is not None]
    if not known:
        raise InputError(f"episodes of {env_id} have no time limit: give one by --max-steps")
    return min(known)


def _numbered_folder(config: Config, env_id: str, recipe: Recipe) -> Path:
    """The first of PARENT/eval-001, eval-002, ... that is not there, with the configuration."""
    parent = config.out or config.model or Path("runs", "eval-agent", f"{env_id}-{config.policy}")
    resolved = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    resolved |= {"env": env_id}
    if isinstance(recipe, MPCRecipe):
        resolved |= recipe.planner
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = parent / f"eval-{number:03}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            (folder / CONFIG).write_text(yaml.safe_dump(resolved, sort_keys=False))
            break
    except OSError as error:
        raise InputError(
            f"results cannot be written to {parent} ({error.strerror}): choose another --out"
        ) from None
    return folder


def _play_all(config: Config, play: PlayEpisode, limit: int, finished: dict[int, Episode]) -> None:
    """Plays every episode under a progress bar and puts each into `finished` as it ends."""
    workers = config.workers or os.cpu_count() or 1
    total = config.episodes * limit
    with tqdm(total=total, unit="step", dynamic_ncols=True, mininterval=0.5) as bar:

        def on_tick(lengths: Sequence[int], totals: Sequence[float]) -> None:
            early = sum(limit - episode.length for episode in finished.values())
            bar.total = total - early
            bar.set_postfix_str(_so_far(totals, finished), refresh=False)
            bar.update(sum(lengths) - bar.n)

        episodes = play_episodes(
            play, config.episodes, workers=workers, threads=config.threads, on_tick=on_tick
        )
        with closing(episodes):
            for index, episode in episodes:
                finished[index] = episode


def _so_far(totals: Sequence[float], finished: Mapping[int, Episode]) -> str:
    if not finished:
        return f"return so far {max(totals, key=abs):.1f}"
    mean = sum(episode.total_reward for episode in finished.values()) / len(finished)
    return f"mean return {mean:.1f} of {len(finished)} finished"


def _figures(
    config: Config, env_id: str, folder: Path, finished: Mapping[int, Episode], seconds: float
) -> dict[str, Any]:
    episodes = [finished[index] for index in sorted(finished)]
    task = TASKS.get(env_id)
    summary = ReturnSummary(
        [episode.total_reward for episode in episodes], task.reference_scores if task else None
    )
    steps = sum(episode.length for episode in episodes)
    acting = sum(episode.acting_seconds for episode in episodes)
    simulating = sum(episode.simulator_seconds for episode in episodes)
    return {
        **summary.figures(),
        "planning_ms_per_step": 1e3 * acting / steps,
        "simulator_share": simulating / (acting + simulating),
        "lengths": [episode.length for episode in episodes],
        "terminated": [episode.terminated for episode in episodes],
        "non_finite_sequences": sum(episode.non_finite_sequences for episode in episodes),
        "seconds": seconds,
        "seed": config.seed,
        "env": env_id,
        "agent": config.agent,
        "planner": config.planner if config.agent == "mpc" else None,
        "policy": config.policy if config.agent == "policy" else None,
        "model": str(config.model) if config.model else None,
        "results": str(folder),
        "video": str(folder / VIDEO) if config.video else None,
    }


def _text(found: Mapping[str, Any]) -> str:
    task = TASKS.get(found["env"])
    summary = ReturnSummary(found["returns"], task.reference_scores if task else None)
    lengths, terminated = found["lengths"], found["terminated"]
    rows = [
        *summary.rows(),
        ("episode lengths", f"{min(lengths)} to {max(lengths)}, {sum(terminated)} terminated"),
        ("acting", f"{found['planning_ms_per_step']:.2f} ms per step"),
        ("simulator's share", f"{found['simulator_share']:.1%} of acting and simulating"),
    ]
    if found["non_finite_sequences"]:
        rows.append(("not finite", f"{found['non_finite_sequences']} imagined sequences"))
    if found["video"]:
        rows.append(("video", found["video"]))
    return "\n".join(f"{name:<18} {value}" for name, value in rows)
