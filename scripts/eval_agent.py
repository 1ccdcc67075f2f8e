"""`eval-agent`: returns of agents in the real simulation, several side by side."""

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import gymnasium
from gymnasium.envs.mujoco import MujocoEnv
from tqdm import tqdm

from mbrl_bilevel.agents.main_script import check_main_script
from mbrl_bilevel.agents.parallel import InTurn, WorkerDied, play_episodes
from mbrl_bilevel.agents.planner_settings import DEFAULTS
from mbrl_bilevel.agents.recipe import PlayEpisode, PolicyRecipe
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.video import mujoco_gl, rendering_backend
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import Count, Range, Threads
from mbrl_bilevel.scripts.agent_results import Played, Results
from mbrl_bilevel.scripts.agents_to_judge import (
    SIMULATOR,
    Contender,
    check,
    environment,
    planning_agents,
    say_what_is_taken_on_trust,
    trained_policies,
)
from mbrl_bilevel.scripts.command import Command, Outcome, resolve_device, say
from mbrl_bilevel.warning_lines import warnings_in_one_line

PlannerName = Literal["icem", "cem", "mppi", "random_shooting"]


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of eval-agent."""

    agent: Literal["mpc", "policy"] = "mpc"
    """mpc plans with --model; policy acts by the trained one in --model, or a shipped --policy."""
    model: Path | tuple[Path, ...] | None = None
    """Run folders of train-model, and `simulator` for planning in the real physics; of policies,
    run folders of train-agent."""
    env: str | None = None
    """The environment to act in, e.g. Hopper-v5; default: the one the model was trained for, with
    the arguments and wrappers of its data. By name it is the plain one."""
    other_env: bool = False
    """Act in --env though the model was trained for another environment, whose sizes must fit."""
    episodes: Annotated[int, Range(1, 1_000_000)] = 5
    """Episodes of each agent; number i is the same for a seed, however many there are."""
    max_steps: Count | None = None
    """End episodes after so many steps; default: the environment's own limit."""
    planner: PlannerName | tuple[PlannerName, ...] = "icem"
    """How mpc chooses its actions; each of several planners plans in each of the models."""
    horizon: int | None = None
    """Steps that the planner looks ahead; default of this and the next: measured, by task."""
    samples: int | None = None
    """Action sequences of the planner's first iteration."""
    iterations: int | None = None
    """Rounds of sampling and refitting per step."""
    elites: int | None = None
    """Best sequences that each round is refitted to."""
    beta: float | None = None
    """Exponent of icem's noise spectrum f^-beta; 0 is white, larger is smoother."""
    init_std: float | None = None
    """First standard deviation of sampled actions, in half-widths of the action bounds."""
    temperature: float | None = None
    """Of mppi's weights, in standard deviations of the returns; small follows the best alone."""
    action_repeat: int | None = None
    """Steps that the planner holds each imagined action for."""
    discount: float | None = None
    """Weight of each later reward in the planner's returns relative to the one before."""
    survival: float | None = None
    """Reward units that each imagined step before a termination counts more, undiscounted."""
    terminal_value: Literal["none", "rest"] | None = None
    """What the planner's last imagined state is worth: rest, for tasks that balance, is its
    nearness to the states that episodes start in, by the linearised model."""
    pessimism: float | None = None
    """Standard deviations over the model's members taken off the mean of their returns."""
    caution: float | None = None
    """The most that an imagined step costs for being far from the model's data, in reward units."""
    disagreement: float | None = None
    """Reward units taken off an imagined step per unit of disagreement between members."""
    propagation: Literal["ts1", "ts_inf", "mean", "mixture"] | None = None
    """How imagined futures pass through the ensemble: trajectory sampling, its mean or mixture."""
    particles: int | None = None
    """Imagined futures of each sequence; default: one for each elite."""
    policy: str = "medium"
    """The shipped policy of --agent policy without --model: medium, expert, random, .... It acts by
    its mean."""
    video: bool = False
    """Write a video (mp4) of each agent's first episode."""
    workers: Count | None = None
    """Episodes that run at once, each in a process of its own; default: the number of cores."""
    threads: Threads = 1
    """Threads of each process; the last digits of results may depend on them."""
    out: Path | None = None
    """A numbered folder in this one takes the results; default: the model's own, or runs/."""

    @property
    def models(self) -> tuple[Path, ...]:
        if self.model is None:
            return ()
        return (self.model,) if isinstance(self.model, Path) else tuple(self.model)

    @property
    def planners(self) -> tuple[str, ...]:
        return (self.planner,) if isinstance(self.planner, str) else tuple(self.planner)


def run(config: Config) -> Outcome:
    with warnings_in_one_line():
        return _run(config)


def _run(config: Config) -> Outcome:
    check_main_script()
    _check_ranges(config)
    spec = environment(config.models, config.agent, config.env, other_env=config.other_env)
    contenders = _contenders(config, spec.id)
    limit, scores = check(contenders, spec, config.max_steps)
    if config.agent == "mpc":
        say_what_is_taken_on_trust(config.models, spec)
    backend = _backend(spec) if config.video else None
    flags = asdict(config) | {"env": spec.id, "environment": spec.to_plain()}
    results = Results.open(_parent(config, spec.id), contenders, flags, scores)
    names = ", ".join(contender.name for contender in contenders)
    say(f"results: {results.folder}   {config.episodes} episodes of {spec} by {names}")
    plays = InTurn(
        tuple(
            PlayEpisode(one.recipe, spec, config.seed, config.max_steps, results.video(one))
            for one in contenders
        )
    )
    played: Played = [{} for _ in contenders]
    started = time.perf_counter()
    try:
        with mujoco_gl(backend):
            _play_all(config, plays, limit, played)
    except (KeyboardInterrupt, WorkerDied, InputError) as error:
        finished, total = sum(map(len, played)), config.episodes * len(contenders)
        say(f"stopped: {finished} of {total} episodes are finished")
        if finished:
            say(results.write(played, time.perf_counter() - started, complete=False).text)
        elif isinstance(error, InputError):
            results.discard()
        if isinstance(error, WorkerDied):
            raise SystemExit(f"mbrl-bilevel eval-agent: {error}") from None
        raise
    outcome = results.write(played, time.perf_counter() - started, complete=True)
    if config.out is None and len(config.models) > 1:
        results.copy_to_models(outcome.figures["agents"])
    return outcome


def _check_ranges(config: Config) -> None:
    if config.agent == "mpc" and not config.models:
        raise InputError("--agent mpc needs a model: name a run folder of train-model by --model")
    if config.agent == "mpc" and not config.planners:
        raise InputError("--planner: name at least one")
    if config.agent == "policy" and SIMULATOR in config.models:
        raise InputError("--agent policy plans in no simulator: name a run folder of train-agent")
    if config.other_env and config.env is None:
        raise InputError("--other-env: name the other environment by --env")
    if config.agent == "policy" and config.env is None and not config.models:
        raise InputError("--agent policy: name the environment by --env, e.g. --env Hopper-v5")


def _contenders(config: Config, env_id: str) -> list[Contender]:
    if config.agent == "policy" and config.models:
        return trained_policies(config.models, config.other_env)
    if config.agent == "policy":
        return [Contender(config.policy, PolicyRecipe(config.policy), policy=config.policy)]
    chosen = {name: getattr(config, name) for name in DEFAULTS}
    device = resolve_device(config.device).type
    return planning_agents(
        config.models,
        config.planners,
        env_id,
        chosen,
        device,
        config.threads,
        config.other_env,
    )


def _backend(spec: EnvSpec) -> str | None:
    """The value of MUJOCO_GL for videos, None where other software draws the environment."""
    try:
        env = make_env(spec, render_mode="rgb_array")
    except InputError as error:  # the plain one has been made
        raise InputError(
            f"--video: {spec.name} cannot be drawn here ({error}); leave --video out"
        ) from None
    try:
        if isinstance(env.unwrapped, MujocoEnv):
            return rendering_backend()
        env.reset(seed=0)
        env.render()
    except gymnasium.error.Error as error:
        raise InputError(
            f"--video: {spec.id} cannot be drawn here ({error}); leave --video out"
        ) from None
    finally:
        env.close()
    return None


def _parent(config: Config, env_id: str) -> Path:
    """Where the numbered folder of results goes."""
    if config.out is not None:
        return config.out
    if len(config.models) == 1 and config.models != (SIMULATOR,):
        return config.models[0]
    shipped = config.agent == "policy" and not config.models
    what = [config.policy] if shipped else []
    what += ["simulator"] if config.models == (SIMULATOR,) else []
    return Path("runs", "eval-agent", "-".join([env_id, *what]))


def _play_all(config: Config, plays: InTurn, limit: int, played: Played) -> None:
    """Plays every episode under a progress bar and puts each into `played` as it ends."""
    workers = config.workers or os.cpu_count() or 1
    episodes = config.episodes * len(plays.plays)
    with tqdm(total=episodes * limit, unit="step", dynamic_ncols=True, mininterval=0.5) as bar:

        def on_tick(lengths: Sequence[int], totals: Sequence[float]) -> None:
            ended = [episode for of_agent in played for episode in of_agent.values()]
            bar.total = episodes * limit - sum(limit - episode.length for episode in ended)
            bar.set_postfix_str(_so_far(totals, played), refresh=False)
            bar.update(sum(lengths) - bar.n)

        running = play_episodes(
            plays, episodes, workers=workers, threads=config.threads, on_tick=on_tick
        )
        with closing(running):
            for index, episode in running:
                number, agent = plays.place(index)
                played[agent][number] = episode


def _so_far(totals: Sequence[float], played: Played) -> str:
    finished = [episode.total_reward for of_agent in played for episode in of_agent.values()]
    if len(played) > 1:
        return f"{len(finished)} of {len(totals)} episodes finished"
    if not finished:
        return f"return so far {max(totals, key=abs):.1f}"
    return f"mean return {sum(finished) / len(finished):.1f} of {len(finished)} finished"
