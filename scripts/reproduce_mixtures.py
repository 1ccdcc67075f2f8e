"""A model that can have several modes, trained by likelihood and by rewards, on real data."""

import csv
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from mbrl_bilevel.data.dataset_folder import datasets_in
from mbrl_bilevel.data.minari import Dataset
from mbrl_bilevel.data.transitions import split_by_episode
from mbrl_bilevel.envs.tasks import get_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.mixture import MixtureEnsemble
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.products import fast_products
from mbrl_bilevel.scripts import mixture_fits as fits
from mbrl_bilevel.scripts.command import Outcome, resolve_device, say
from mbrl_bilevel.scripts.csv_table import write_csv
from mbrl_bilevel.scripts.flag_checks import make_folder
from mbrl_bilevel.scripts.flags.reproduce import Config
from mbrl_bilevel.scripts.mixture_table import REFERENCE, by_target, heavy, summarise, table
from mbrl_bilevel.scripts.reproduce_dynamics import collected
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings

ENV = "Hopper-v5"
STEPS = 2_000  # gradient steps of each run
MEMBERS, WIDTH, COMPONENTS = 3, 200, 3
SAMPLES = 16  # generations a row, of the losses by samples
OBJECTIVES = (
    REFERENCE,
    "likelihood",
    "energy_score",
    "energy_score_samples",
    "squared_error",
    "likelihood_half",
    "learned_reward",
)
METRICS = ("nll", "bounded_nll", "energy_score", "mse", "between", "pooled_nll", "kurtosis")
RUN = ("objective", "seed", "steps", "test_episodes", "processor_seconds")
Rows = list[dict[str, Any]]


def reproduce(config: Config) -> Outcome:
    """Trains the same network by each loss, with several seeds, on the medium data of Hopper-v5.

    The network predicts a mixture of three Gaussians of each target; `gaussian` has one. A seed
    decides split, initialisation and batches. Metrics are those of a second data set, means over
    the members, per target and in standardised units of the training part: NLL in nats, energy
    score (CRPS), error of the mean, share of the variance between the components' means. Targets
    are told apart by the excess kurtosis of the held-out residuals of `gaussian`, in deviations:
    the half with the largest, on average over seeds, are `heavy`. `learned_reward` is
    log m(y_hat | x) of `likelihood_half`, which is fitted to half of the training episodes; the
    other half is its own. With --out, mixtures-runs.csv holds a row per run and target,
    mixtures.csv and mixtures-targets.csv the tables; the same command continues with what is
    missing.

    Raises:
        InputError: a folder that cannot be written, or runs of other steps in it.
    """
    steps = config.steps or STEPS
    for name, folder in (("--data", config.data), ("--out", config.out)):
        if folder is not None:
            make_folder(name, folder)
    runs = None if config.out is None else config.out / "mixtures-runs.csv"
    rows = [] if runs is None else _earlier(runs, steps)
    device = resolve_device(config.device)
    fast_products()
    seeds = range(config.seed, config.seed + config.repetitions)
    with tempfile.TemporaryDirectory() as temporary, datasets_in(config.data or Path(temporary)):
        data, test = collected(ENV)
        for seed in seeds:
            done = {row["objective"] for row in rows if row["seed"] == seed}
            for found in _runs(data, test, seed, done, steps, device):
                rows += found
                if runs is not None:
                    write_csv(rows, runs, list(rows[0]))
    rows = [row for row in rows if row["seed"] in seeds]
    summary = summarise(rows)
    if config.out is not None:
        targets = by_target(rows)
        write_csv(summary, config.out / "mixtures.csv", list(summary[0]))
        write_csv(targets, config.out / "mixtures-targets.csv", list(targets[0]))
    results = {"test": rows, "table": summary, "heavy": heavy(rows), "steps": steps}
    return Outcome(results | {"seed": config.seed, "seeds": len(seeds)}, table(rows))


def _earlier(path: Path, steps: int) -> Rows:
    """Rows of runs that an earlier command has made."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        found: Rows = list(csv.DictReader(file))
    text = ("objective", "target")
    if any(set(row) != {*RUN, "target", *METRICS} or row["steps"] != str(steps) for row in found):
        raise InputError(
            f"{path} is of other steps than {steps}, or of another version: choose another --out"
        )
    whole = ("seed", "steps", "test_episodes")
    return [
        {k: v if k in text else int(v) if k in whole else float(v) for k, v in row.items()}
        for row in found
    ]


def _runs(
    data: Dataset, test: Dataset, seed: int, done: set[str], steps: int, device: torch.device
) -> Iterator[Rows]:
    """Rows of every run of a seed that is not done, a row per target."""
    generator = torch.Generator().manual_seed(seed)
    train, held_out = split_by_episode(data.transitions, (0.8, 0.2), generator)
    halves = split_by_episode(train, (0.5, 0.5), generator)
    encoding = DynamicsModel(
        train.observation.shape[1],
        train.action.shape[1],
        ModelSettings(members=1, hidden=(1,)),
        observation_names=get_task(ENV).observation_names,
    ).to(device)
    encoding.fit_standardizers(train.to(device))
    whole, of_reward, of_model, held, tested = (
        Samples(*encoding.encode(part.to(device)))
        for part in (train, *halves, held_out, test.transitions)
    )
    reward: MixtureEnsemble | None = None
    for objective in OBJECTIVES:
        wanted = {objective, "learned_reward"} if objective == "likelihood_half" else {objective}
        if wanted <= done:
            continue
        say(f"{data.id}, {objective}, seed {seed}")
        began = time.process_time()
        rows = {"likelihood_half": of_reward, "learned_reward": of_model}.get(objective, whole)
        network = _fit(objective, rows, held, seed, FitSettings(steps=steps), reward)
        seconds = time.process_time() - began
        reward = network if objective == "likelihood_half" else None
        if objective in done:
            continue
        metrics = fits.evaluate(network, tested)
        metrics["kurtosis"] = fits.evaluate(network, held)["kurtosis"]
        run = (objective, seed, steps, test.transitions.episodes, round(seconds, 1))
        yield [
            dict(zip(RUN, run, strict=True))
            | {"target": name}
            | {metric: metrics[metric][i].item() for metric in METRICS}
            for i, name in enumerate(encoding.informative_names)
        ]


def _fit(
    objective: str,
    rows: Samples,
    held_out: Samples,
    seed: int,
    settings: FitSettings,
    reward: MixtureEnsemble | None,
) -> MixtureEnsemble:
    device = rows.x.device
    # The model that a learned reward trains has a start of its own, unlike the reward's.
    own = 2**32 if objective == "learned_reward" else 0
    generator = torch.Generator(device).manual_seed(seed + own)
    # What is drawn of the model moves no batch.
    generations = torch.Generator(device).manual_seed(seed + 2**33)
    with device:
        network = MixtureEnsemble(
            rows.x.shape[1],
            rows.y.shape[1],
            components=1 if objective == REFERENCE else COMPONENTS,
            members=MEMBERS,
            hidden=(WIDTH,) * 3,
            generator=generator,
        )
    losses: dict[str, Callable[[], fits.Loss]] = {
        "energy_score": lambda: fits.energy_score,
        "energy_score_samples": lambda: fits.energy_score_samples(SAMPLES, generations),
        "squared_error": lambda: fits.squared_error(SAMPLES, generations),
    }
    if reward is not None:
        losses["learned_reward"] = lambda: fits.learned_reward(reward, SAMPLES, generations)
    loss = losses.get(objective, lambda: fits.likelihood)()
    fits.fit(network, loss, rows, held_out, settings, generator)
    return network
