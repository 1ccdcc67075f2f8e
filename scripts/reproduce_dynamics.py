"""Every objective on real data at equal parameters and steps: paired differences over seeds."""

import csv
import json
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import torch

from mbrl_bilevel.agents.behaviour import load_policy, shipped_policies
from mbrl_bilevel.data.dataset_folder import dataset_folder, datasets_in
from mbrl_bilevel.data.minari import Dataset, load_dataset
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.k_step import k_step
from mbrl_bilevel.evaluation.one_step import evaluate_one_step
from mbrl_bilevel.evaluation.windows import draw_windows
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.scripts import collect, train_model
from mbrl_bilevel.scripts.command import Outcome, resolve_device, say
from mbrl_bilevel.scripts.csv_table import write_csv
from mbrl_bilevel.scripts.equal_size import hidden_of_equal_size, parameters
from mbrl_bilevel.scripts.flag_checks import make_folder
from mbrl_bilevel.scripts.flags import collect as collect_flags
from mbrl_bilevel.scripts.flags import train_model as train_model_flags
from mbrl_bilevel.scripts.flags.reproduce import Config
from mbrl_bilevel.scripts.paired_differences import interval
from mbrl_bilevel.scripts.training_data import require_unchanged
from mbrl_bilevel.training.run_folder import CONFIG, SUMMARY, RunFolder
from mbrl_bilevel.training.settings import FitSettings

TRANSITIONS = 25_000  # of which the training part is 20,000
TEST_TRANSITIONS, TEST_EPISODES = 20_000, 20  # of the data set that nobody is trained on, at least
TEST_SEED = 10_000
STEPS = 4_000  # gradient steps of each run
WIDTH = 200  # units of three layers of nll, whose parameters the others have too; -wide: twice
HORIZON, WINDOWS = 10, 2_000  # of the open-loop error: steps, and starts in the test data
REFERENCES = ("nll", "bilevel")
METRICS = ("mse", "nll", "member_mse", "member_nll", "ece")
COMPARED = {"mse": ("MSE", 5), "nll": ("NLL", 3), "open_loop": (f"{HORIZON}-step RMSE", 4)}
Rows = list[dict[str, Any]]


def reproduce(config: Config) -> Outcome:
    """Trains each objective on data of each environment, with several seeds.

    The data are the shipped medium policy's, or random actions where none is shipped. A seed
    decides split, initialisation and batches, of all objectives alike. All networks have as many
    parameters as nll's, NAME-wide twice as many. Metrics are those of a second data set of at least
    TEST_EPISODES episodes, in standardised units of the training part: mean squared error and NLL
    per dimension of the mixture of members; open_loop: root mean squared error after HORIZON steps
    of the members' mean (`evaluation.k_step`). With --out, dynamics.csv holds a row per run.

    Raises:
        InputError: an environment that does not exist, or an unknown objective.
    """
    for env in config.envs:
        load_policy(env, _policy(env))
    for objective in config.compared:
        if objective.removesuffix("-wide") not in OBJECTIVES:
            known = ", ".join(OBJECTIVES.names)
            raise InputError(f"--objectives {objective}: choose from {known}, or one with -wide")
    for name, folder in (("--data", config.data), ("--out", config.out)):
        if folder is not None:
            make_folder(name, folder)
    rows: Rows = []
    others = [] if config.out is None else _others(config, config.out / "dynamics.csv")
    with tempfile.TemporaryDirectory() as runs, datasets_in(config.data or Path(runs, "datasets")):
        for env in config.envs:
            data, test = collected(env)
            for seed in range(config.seed, config.seed + config.repetitions):
                for objective in config.compared:
                    run = Path(config.out or runs, env, f"{objective}-{seed}")
                    found = _train(config, data, objective, seed, run)
                    found |= _test(run, test, config.device)
                    rows.append({"environment": env, "objective": objective, "seed": seed} | found)
                    if config.out is not None:
                        write_csv(others + rows, config.out / "dynamics.csv", list(rows[0]))
    results: dict[str, Any] = {
        "test": _by_objective(rows), "seed": config.seed, "seeds": config.repetitions,
        "steps": config.steps or STEPS,
    }  # fmt: skip
    return Outcome(results, "\n\n".join(table(env, rows) for env in config.envs))


def _others(config: Config, path: Path) -> Rows:
    """Rows of an earlier command whose runs this one does not make: they stay in the file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        found: Rows = list(csv.DictReader(file))
    if found and "open_loop" not in found[0]:
        raise InputError(f"{path} is of an earlier version: choose another --out")
    seeds = range(config.seed, config.seed + config.repetitions)
    return [
        row
        for row in found
        if row["environment"] not in config.envs
        or row["objective"] not in config.compared
        or int(row["seed"]) not in seeds
    ]


def collected(env: str) -> tuple[Dataset, Dataset]:
    """The data to train on, and a second data set of the same policy to test on.

    Raises:
        InputError: the second one has fewer than TEST_EPISODES episodes.
    """
    name = f"{env.split('-')[0].lower()}/{_policy(env)}"
    make = partial(_collect, env)
    data = make(f"{name}-v0", TRANSITIONS, 0)
    test = make(f"{name}-test-v0", TEST_TRANSITIONS, TEST_SEED)
    if test.transitions.episodes < TEST_EPISODES:
        raise InputError(
            f"{test.id} has {test.transitions.episodes} episodes, tests are of {TEST_EPISODES} or "
            "more: remove it, or choose another --data"
        )
    return data, test


def _policy(env: str) -> Literal["medium", "random"]:
    return "medium" if (env, "medium") in shipped_policies() else "random"


def _collect(env: str, dataset: str, steps: int, seed: int) -> Dataset:
    try:
        dataset_folder(dataset)
    except InputError:
        flags = collect_flags.Config(
            env=env, policy=_policy(env), steps=steps, dataset=dataset, seed=seed
        )
        collect.run(flags)
    return load_dataset(dataset)


def _train(config: Config, data: Dataset, objective: str, seed: int, run: Path) -> dict[str, Any]:
    say(f"{data.id}, {objective}, seed {seed}")
    base = objective.removesuffix("-wide")
    spec = OBJECTIVES.settings(base)()
    inputs, outputs = (
        data.transitions.observation.shape[1] + data.transitions.action.shape[1],
        data.transitions.observation.shape[1],
    )
    size = parameters("gaussian", inputs, outputs, WIDTH) * (1 if objective == base else 2)
    hidden = hidden_of_equal_size(spec.kind, inputs, outputs, size)
    flags = train_model_flags.Config(
        run=train_model_flags.RunFlags(
            out=run, seed=seed, device=config.device, resume=(run / CONFIG).is_file()
        ),
        data=train_model_flags.DataFlags(dataset=data.id),
        model=train_model_flags.ModelFlags(hidden=hidden),
        objective=spec,
        fit=FitSettings(steps=config.steps or STEPS),
    )
    finished = run / SUMMARY
    if finished.is_file():
        require_unchanged(run, data.id, data)
        with RunFolder(run, train_model.resolved(flags, data), resume=True):  # of the same flags
            trained = json.loads(finished.read_text())
    else:
        trained = train_model.run(flags).results
    return {
        "units": hidden[0],
        "parameters": trained["parameters"],
        "steps": trained["steps"],
        "seconds": trained["seconds"],
    }


def _test(run: Path, test: Dataset, device: str) -> dict[str, Any]:
    """Metrics of the run's model on the test data."""
    on = torch.device(resolve_device(device))
    model = DynamicsModel.load(run, str(on))
    transitions = test.transitions.to(on)
    found = evaluate_one_step(model, transitions)
    metrics = found.metrics() | {"mse": found.rmse**2}
    # The same starts for every run, whatever was drawn before.
    generator = torch.Generator(on).manual_seed(0)
    windows = draw_windows(transitions, HORIZON, generator, WINDOWS)
    errors = k_step(model, windows, generator)
    return {name: metrics[name] for name in METRICS} | {
        "open_loop": errors.rmse[-1].item(),
        "open_loop_steps": len(errors.rmse),
        "open_loop_lost": errors.non_finite,
        "test_episodes": test.transitions.episodes,
    }


def _by_objective(rows: Rows) -> dict[str, dict[str, Rows]]:
    found: dict[str, dict[str, Rows]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["environment"]][row["objective"]].append(
            {k: v for k, v in row.items() if k not in ("environment", "objective")}
        )
    return found


def table(env: str, rows: Rows) -> str:
    """Mean and standard error over seeds; then differences to REFERENCES, paired by seed."""
    found = _by_objective(rows)[env]
    names = "".join(f"{name:>19}" for name, _ in COMPARED.values())
    lines = [f"{env:<18} {'parameters':>10} {names} {'ECE':>7} {'seconds':>8}"]
    for objective, runs in found.items():
        cells = "".join(f"{_spread([r[k] for r in runs], n):>19}" for k, (_, n) in COMPARED.items())
        ece, seconds = (mean(r[k] for r in runs) for k in ("ece", "seconds"))
        size = runs[0]["parameters"]
        lines.append(f"{objective:<18} {size:>10,} {cells} {ece:>7.3f} {seconds:>8.1f}")
    for reference in REFERENCES:
        if reference in found and len(found) > 1:
            lines += _differences(found, reference)
    return "\n".join(lines)


def _differences(found: dict[str, Rows], reference: str) -> list[str]:
    lines = [f"difference to {reference}, same seeds: mean (95 % interval)"]
    for objective, runs in found.items():
        if objective != reference:
            cells = (
                f"{name} {_difference([r[k] for r in runs], [r[k] for r in found[reference]], n)}"
                for k, (name, n) in COMPARED.items()
            )
            lines.append(f"{objective:<18} {'  '.join(cells)}")
    return lines


def _difference(values: list[float], others: list[float], digits: int) -> str:
    middle, low, high = interval([a - b for a, b in zip(values, others, strict=True)])
    if len(values) == 1:
        return f"{middle:+.{digits}f}"
    return f"{middle:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def _spread(values: list[float], digits: int) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values) / len(values) ** 0.5:.{digits}f}"
