"""`collect`: a real Minari data set by a shipped behaviour policy."""

import time

from mbrl_bilevel.agents.collect import new_dataset_path
from mbrl_bilevel.agents.data_collection import collect_dataset
from mbrl_bilevel.scripts.command import Outcome, say
from mbrl_bilevel.scripts.flags.collect import Config
from mbrl_bilevel.wording import counted


def run(config: Config) -> Outcome:
    """Plays the policy and writes the data set, which appears under its id once it is complete.

    Raises:
        InputError: an id that is taken, an environment or policy that is unknown, or no room.
    """
    path = new_dataset_path(config.dataset, overwrite=config.overwrite)
    said = f"collecting {config.steps:,} steps of {config.env} by {config.policy} into {path}"
    start = time.perf_counter()
    rollouts = collect_dataset(
        config.env,
        config.policy,
        config.steps,
        config.dataset,
        seed=config.seed,
        deterministic=config.deterministic,
        overwrite=config.overwrite,
        on_start=lambda: say(said),
    )
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
