"""`eval-agent`: returns of agents in the real simulation, several side by side."""

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import gymnasium
from gymnasium.envs.mujoco import MujocoEnv
from tqdm import tqdm

from mbrl_bilevel.agents.agent_spec import PolicySpec
from mbrl_bilevel.agents.main_script import check_main_script
from mbrl_bilevel.agents.parallel import InTurn, WorkerDied, play_episodes
from mbrl_bilevel.agents.play_episode import PlayEpisode
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.video import mujoco_gl, rendering_backend
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.products import choose_products
from mbrl_bilevel.ranges import flag
from mbrl_bilevel.scripts.agent_results import Played, Results
from mbrl_bilevel.scripts.candidates import (
    SIMULATOR,
    Candidate,
    check,
    environment,
    planning_candidates,
    trained_policies,
    warn_of_models_without_environment,
)
from mbrl_bilevel.scripts.command import Outcome, resolve_device, say
from mbrl_bilevel.scripts.flags.eval_agent import Config
from mbrl_bilevel.warning_lines import warnings_in_one_line


def run(config: Config) -> Outcome:
    with warnings_in_one_line():
        return _run(config)


def _run(config: Config) -> Outcome:
    check_main_script()
    _check_flags(config)
    choose_products(config.precision, resolve_device(config.device))
    spec = environment(config.models, config.agent, config.env, other_env=config.other_env)
    candidates = _candidates(config, spec.id)
    limit, scores = check(candidates, spec, config.max_steps)
    if config.agent == "mpc":
        warn_of_models_without_environment(config.models, spec)
    backend = _backend(spec) if config.video else None
    flags = asdict(config) | {"env": spec.id, "environment": spec.to_plain()}
    flags["planner"] = config.planner or config.planners[0]
    del flags["planning"]  # each agent's own settings stand beside it
    results = Results.open(_parent(config, spec.id), candidates, flags, scores)
    names = ", ".join(candidate.name for candidate in candidates)
    say(f"results: {results.folder}   {config.episodes} episodes of {spec} by {names}")
    plays = InTurn(
        tuple(
            PlayEpisode(one.spec, spec, config.seed, config.max_steps, results.video(one))
            for one in candidates
        )
    )
    played: Played = [{} for _ in candidates]
    started = time.perf_counter()
    try:
        with mujoco_gl(backend):
            _play_all(config, plays, limit, played)
    except (KeyboardInterrupt, WorkerDied, InputError) as error:
        finished, total = sum(map(len, played)), config.episodes * len(candidates)
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
        results.copy_to_models(outcome.results["agents"])
    return outcome


def _check_flags(config: Config) -> None:
    if config.agent == "mpc" and not config.models:
        raise InputError("--agent mpc needs a model: name a run folder of train-model by --model")
    if config.agent == "mpc" and not config.planners:
        raise InputError("--planner: name at least one")
    if config.agent == "policy" and config.planning:
        name, value = next(iter(config.planning.items()))
        raise InputError(f"{flag(name)} {value} is for planning: leave it out of --agent policy")
    if config.agent == "policy" and SIMULATOR in config.models:
        raise InputError("--agent policy plans in no simulator: name a run folder of train-agent")
    if config.other_env and config.env is None:
        raise InputError("--other-env: name the other environment by --env")
    if config.agent == "policy" and config.env is None and not config.models:
        raise InputError("--agent policy: name the environment by --env, e.g. --env Hopper-v5")


def _candidates(config: Config, env_id: str) -> list[Candidate]:
    if config.agent == "policy" and config.models:
        return trained_policies(config.models, other_env=config.other_env)
    if config.agent == "policy":
        return [Candidate(config.policy, PolicySpec(config.policy), policy=config.policy)]
    return planning_candidates(
        config.models,
        config.planners,
        env_id,
        config.planning,
        device=resolve_device(config.device).type,
        threads=config.threads,
        other_env=config.other_env,
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
