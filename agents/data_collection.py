"""A Minari data set by a behaviour policy, from one call."""

from collections.abc import Callable

from mbrl_bilevel.agents.behaviour import load_policy
from mbrl_bilevel.agents.collect import (
    Rollouts,
    check_spec,
    new_dataset_path,
    roll_out,
    write_dataset,
)
from mbrl_bilevel.envs.make import make_env


def collect_dataset(
    env: str,
    policy: str,
    steps: int,
    dataset: str,
    *,
    seed: int = 0,
    deterministic: bool = False,
    overwrite: bool = False,
    on_start: Callable[[], None] | None = None,
) -> Rollouts:
    """Plays a policy and writes what it does as the data set of this id, once it is complete.

    `policy` is "random", or one of those shipped for the environment. The data set is found by its
    id where Minari keeps data sets (environment variable MINARI_DATASETS_PATH). `on_start` is
    called once all is checked, before the first step.

    Raises:
        InputError: an id that is taken, an environment or policy that is unknown, or no room.
    """
    # First: episodes take long, and an id that is taken can be told before.
    path = new_dataset_path(dataset, overwrite=overwrite)
    made = make_env(env)
    check_spec(made)
    acting = load_policy(env, policy)
    if on_start is not None:
        on_start()
    rollouts = roll_out(made, acting, steps, seed=seed, deterministic=deterministic)
    name = acting.metadata["policy"]
    write_dataset(
        path,
        dataset,
        rollouts,
        made,
        algorithm=f"{acting.metadata['algorithm']}, policy {name!r}",
        description=(
            f"{steps} transitions of {env} by the behaviour policy {name!r} of mbrl-bilevel, "
            f"{'deterministic' if deterministic else 'sampled'} actions, seed {seed}."
        ),
        command=(
            f"mbrl-bilevel collect --env {env} --policy {policy} --steps {steps} "
            f"--dataset {dataset} --seed {seed}{' --deterministic' if deterministic else ''}"
        ),
        overwrite=overwrite,
    )
    made.close()
    return rollouts
