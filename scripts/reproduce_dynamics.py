"""Every objective on real data at one budget: test error and likelihood over seeds."""

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mbrl_bilevel.agents.behaviour import load_policy
from mbrl_bilevel.data.dataset_folder import dataset_folder, datasets_in
from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.scripts import collect, train_model
from mbrl_bilevel.scripts.command import Outcome, say
from mbrl_bilevel.scripts.flag_checks import make_folder
from mbrl_bilevel.scripts.flags import collect as collect_flags
from mbrl_bilevel.scripts.flags import train_model as train_model_flags
from mbrl_bilevel.scripts.flags.reproduce import Config
from mbrl_bilevel.scripts.training_data import require_unchanged
from mbrl_bilevel.training.run_folder import CONFIG, SUMMARY, RunFolder
from mbrl_bilevel.training.settings import FitSettings

TRANSITIONS = 25_000  # of which the training part is 20,000
BASELINES = ("mse", "nll", "beta_nll")  # what a learned reward has to face
STEPS = 4_000  # gradient steps of each run
HIDDEN, WIDE = (200, 200, 200), (290, 290, 290)  # the wide one for objectives named NAME-wide
Metrics = dict[str, list[dict[str, float]]]


def reproduce(config: Config) -> Outcome:
    """Trains each objective on the medium data of each environment, `seeds` times.

    A seed decides split, initialisation and batches. Metrics are those of the test episodes, in
    standardised units: mean squared error and NLL per dimension of the mixture of members.

    Raises:
        InputError: an environment without a shipped medium policy, or an unknown objective.
    """
    for env in config.envs:
        load_policy(env, "medium")
    for objective in config.compared:
        if objective.removesuffix("-wide") not in OBJECTIVES:
            known = ", ".join(OBJECTIVES.names)
            raise InputError(f"--objectives {objective}: choose from {known}, or one with -wide")
    for name, folder in (("--data", config.data), ("--out", config.out)):
        if folder is not None:
            make_folder(name, folder)
    found: dict[str, Metrics] = {}
    with tempfile.TemporaryDirectory() as runs, datasets_in(config.data or Path(runs, "datasets")):
        for env in config.envs:
            dataset = f"{env.split('-')[0].lower()}/medium-v0"
            _collect(env, dataset)
            found[env] = defaultdict(list)
            for seed in range(config.seed, config.seed + config.seeds):
                for objective in config.compared:
                    run = Path(config.out or runs, env, f"{objective}-{seed}")
                    found[env][objective].append(_train(config, dataset, objective, seed, run))
    results: dict[str, Any] = {
        "test": found, "seed": config.seed, "seeds": config.seeds, "steps": config.steps or STEPS,
    }  # fmt: skip
    return Outcome(results, "\n\n".join(_table(env, found[env]) for env in config.envs))


def _collect(env: str, dataset: str) -> None:
    try:
        dataset_folder(dataset)
    except InputError:
        collect.run(
            collect_flags.Config(
                env=env, policy="medium", steps=TRANSITIONS, dataset=dataset, seed=0
            )
        )


def _train(config: Config, dataset: str, objective: str, seed: int, run: Path) -> dict[str, float]:
    say(f"{dataset}, {objective}, seed {seed}")
    base = objective.removesuffix("-wide")
    flags = train_model_flags.Config(
        run=train_model_flags.RunFlags(
            out=run, seed=seed, device=config.device, resume=(run / CONFIG).is_file()
        ),
        data=train_model_flags.DataFlags(dataset=dataset),
        model=train_model_flags.ModelFlags(hidden=HIDDEN if objective == base else WIDE),
        objective=OBJECTIVES.settings(base)(),
        fit=FitSettings(steps=config.steps or STEPS),
    )
    finished = run / SUMMARY
    if finished.is_file():
        data = load_dataset(dataset)
        require_unchanged(run, dataset, data)
        with RunFolder(run, train_model.resolved(flags, data), resume=True):  # of the same flags
            trained = json.loads(finished.read_text())
    else:
        trained = train_model.run(flags).results
    test = trained["test"]
    return {
        "mse": test["rmse"] ** 2,
        "nll": test["nll"],
        "member_mse": test["member_mse"],
        "member_nll": test["member_nll"],
        "ece": test["ece"],
        "seconds": trained["seconds"],
    }


def _table(env: str, found: Metrics) -> str:
    """Mean and standard error over seeds; then two_means beside the best baseline."""
    lines = [f"{env:<15} {'test MSE':>18} {'test NLL':>18} {'ECE':>7} {'seconds':>8}"]
    for objective, runs in found.items():
        mse, nll = (_spread([r[key] for r in runs], key) for key in ("mse", "nll"))
        ece, seconds = _mean(runs, "ece"), _mean(runs, "seconds")
        lines.append(f"{objective:<15} {mse:>18} {nll:>18} {ece:>7.3f} {seconds:>8.1f}")
    for suffix in ("", "-wide"):
        lines += _against(found, [n + suffix for n in BASELINES if n + suffix in found])
    if {"two_means", "nll"} <= found.keys():
        ratio = _mean(found["two_means"], "seconds") / _mean(found["nll"], "seconds")
        lines.append(f"two_means takes {ratio:.2f} times as long as nll")
    return "\n".join(lines)


def _against(found: Metrics, baselines: list[str]) -> list[str]:
    if "two_means" not in found or not baselines:
        return []
    error = _mean(found["two_means"], "mse") / min(_mean(found[name], "mse") for name in baselines)
    nll_gap = _mean(found["two_means"], "nll") - min(
        _mean(found[name], "nll") for name in baselines
    )
    return [
        f"two_means against the best of {', '.join(baselines)}: "
        f"{error:.3f} times the MSE, {nll_gap:+.3f} in NLL per dimension"
    ]


def _mean(runs: list[dict[str, float]], key: str) -> float:
    return mean(run[key] for run in runs)


def _spread(values: list[float], key: str) -> str:
    digits = {"mse": 5, "nll": 3}[key]
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values) / len(values) ** 0.5:.{digits}f}"
