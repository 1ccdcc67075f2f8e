"""`collect`: a real Minari data set by a shipped behaviour policy."""

import time

from mbrl_bilevel.agents.behaviour import load_policy
from mbrl_bilevel.agents.collect import check_spec, new_dataset_path, roll_out, write_dataset
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.scripts.command import Outcome, say
from mbrl_bilevel.scripts.flags.collect import Config
from mbrl_bilevel.wording import counted


def run(config: Config) -> Outcome:
    """Plays the policy and writes the data set, which appears under its id once it is complete.

    Raises:
        InputError: an id that is taken, an environment or policy that is unknown, or no room.
    """
    path = new_dataset_path(config.dataset, overwrite=config.overwrite)
    env = make_env(config.env)
    check_spec(env)
    policy = load_policy(config.env, config.policy)
    say(f"collecting {config.steps:,} steps of {config.env} by {config.policy} into {path}")
    start = time.perf_counter()
    rollouts = roll_out(
        env, policy, config.steps, seed=config.seed, deterministic=config.deterministic
    )
    write_dataset(
        path,
        config.dataset,
        rollouts,
        env,
        algorithm=f"{policy.metadata['algorithm']}, policy {policy.metadata['policy']!r}",
        description=_description(config, policy.metadata["policy"]),
        command=_command(config),
        overwrite=config.overwrite,
    )
    env.close()
    seconds = time.perf_counter() - start
    found = {
        "dataset": config.dataset,
        "steps": config.steps,
        "episodes": len(rollouts.episodes),
        "mean_return": rollouts.mean_return,
        "seconds": seconds,
        "transitions_per_second": config.steps / seconds,
        "path": str(path),
        "seed": config.seed,
    }
    text = (
        f"{config.steps:,} transitions in {counted(len(rollouts.episodes), 'episode')}, mean "
        f"return {rollouts.mean_return:.1f}, in {seconds:.1f} s "
        f"({config.steps / seconds:,.0f} a second)\n"
        f"written to {path}\n"
        f"next: mbrl-bilevel train-model --dataset {config.dataset} --out runs/model"
    )
    return Outcome(found, text)


def _description(config: Config, policy: str) -> str:
    return (
        f"{config.steps} transitions of {config.env} by the behaviour policy {policy!r} of "
        f"mbrl-bilevel, {'deterministic' if config.deterministic else 'sampled'} actions, seed "
        f"{config.seed}."
    )


def _command(config: Config) -> str:
    flag = " --deterministic" if config.deterministic else ""
    return (
        f"mbrl-bilevel collect --env {config.env} --policy {config.policy} --steps {config.steps} "
        f"--dataset {config.dataset} --seed {config.seed}{flag}"
    )
