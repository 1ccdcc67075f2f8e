"""The usual regression suite of small UCI data sets, every objective at one budget."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.one_step import one_step
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.build import build
from mbrl_bilevel.objectives.settings import OBJECTIVES, BilevelSettings, OuterSettings
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.scripts.command import Outcome, resolve_device
from mbrl_bilevel.scripts.flags.reproduce import Config
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.trainer import Trainer

MEMBERS, HIDDEN, EPOCHS = 5, (50,), 40  # as Lakshminarayanan et al. 2017
HELD_OUT = 0.1  # of the training rows: selects epochs, sets plug-in variances
BATCH_SIZE = 32  # the smallest set has 249 rows to fit: 40 epochs of 100 would be 80 steps
STEPS_PER_EPOCH = 100  # at the most: beyond 3,200 rows batches grow with the set
# Chosen for nll and two_means by held-out rows of a few splits, 3e-3 to 1e-1; the same for all.
LEARNING_RATE = 3e-2
FILES = ("data.txt", "index_features.txt", "index_target.txt", "n_splits.txt")

Metrics = dict[str, list[float]]

# Means over the 20 splits of RMSE and NLL in the units of the target, one hidden layer of 50 units:
# probabilistic backpropagation (Hernandez-Lobato and Adams 2015) and Deep Ensembles
# (Lakshminarayanan et al. 2017, table 1).
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "bostonHousing": {"PBP": (3.01, 2.57), "Deep Ensembles": (3.28, 2.41)},
    "concrete": {"PBP": (5.67, 3.16), "Deep Ensembles": (6.03, 3.06)},
    "energy": {"PBP": (1.80, 2.04), "Deep Ensembles": (2.09, 1.38)},
    "power-plant": {"PBP": (4.12, 2.84), "Deep Ensembles": (4.11, 2.79)},
    "wine-quality-red": {"PBP": (0.64, 0.97), "Deep Ensembles": (0.64, 0.94)},
    "yacht": {"PBP": (1.02, 1.63), "Deep Ensembles": (1.58, 1.18)},
}


@dataclass(frozen=True)
class RegressionSet:
    """Inputs x [b, d] and one target y [b] in their own units, and how often to split them."""

    name: str
    x: Float[Tensor, "b d"]
    y: Float[Tensor, "b"]
    splits: int


def reproduce(config: Config) -> Outcome:
    """Trains each objective on each published split; RMSE and NLL in the units of the target.

    Every objective has the same 40 epochs, network, batches and schedule. Inputs and target are
    standardised by the rows to fit. Folds of outer data are of rows; bilevel's outer objective is
    one_step.
    The test rows of a split are touched once per fit, when it is over.

    Raises:
        InputError: no --data, a folder that does not hold the suite, or an unknown objective.
    """
    for objective in config.compared:
        if objective not in OBJECTIVES:
            raise InputError(f"--objectives {objective}: choose from {', '.join(OBJECTIVES.names)}")
    sets = load_suite(config.data)
    found: dict[str, dict[str, Metrics]] = {}
    total = sum(s.splits for s in sets) * len(config.compared)
    with tqdm(total=total, unit="fit", desc="uci", smoothing=0) as bar:
        for data in sets:
            found[data.name] = {o: {"rmse": [], "nll": []} for o in config.compared}
            for split, (train, test) in enumerate(splits(len(data.y), data.splits)):
                for objective in config.compared:
                    bar.set_postfix_str(f"{data.name}, split {split + 1}, {objective}")
                    seed = (1000 * config.seed + split) % 2**63
                    flags = _flags(objective)
                    rmse, nll = _evaluate(config, flags, data, train, test, seed)
                    found[data.name][objective]["rmse"].append(rmse)
                    found[data.name][objective]["nll"].append(nll)
                    bar.update()
            bar.write(table(data.name, found[data.name]) + "\n", file=sys.stderr)
    results = {"test": found, "seed": config.seed, "published": PUBLISHED}
    return Outcome(results, "\n\n".join(table(name, rows) for name, rows in found.items()))


def load_suite(folder: Path | None) -> list[RegressionSet]:
    """Every data set of FOLDER/NAME/{data,index_features,index_target,n_splits}.txt, small first.

    Raises:
        InputError: no folder given, none there, or files that are missing or make no sense.
    """
    if folder is None:
        raise InputError("reproduce uci needs --data FOLDER with NAME/data.txt of each data set")
    places = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if not places:
        raise InputError(f"--data {folder} holds no data set: it needs NAME/{', '.join(FILES)}")
    return sorted((_load(place) for place in places), key=lambda data: len(data.y))


def _load(place: Path) -> RegressionSet:
    try:
        rows, features, target, count = (np.loadtxt(place / file, ndmin=1) for file in FILES)
    except (OSError, ValueError) as error:
        raise InputError(f"{place} is no data set of the suite ({error}); see --data") from error
    if rows.ndim != 2 or len(rows) < 50 or not np.isfinite(rows).all():
        raise InputError(f"{place}: data.txt needs 50 rows or more of finite numbers")
    index = np.concatenate([features.ravel(), target.ravel()])
    whole = np.array_equal(index, index.astype(int))
    if not whole or index.min() < 0 or index.max() >= rows.shape[1]:
        raise InputError(f"{place}: the columns that the index files name are not in data.txt")
    if target.size != 1 or features.size < 1 or count.size != 1 or not 1 <= count[0] <= 1000:
        raise InputError(
            f"{place}: needs feature columns, one target column and a number of splits"
        )
    values = torch.as_tensor(rows, dtype=torch.float32)
    columns = torch.as_tensor(features.ravel().astype(int))
    return RegressionSet(place.name, values[:, columns], values[:, int(target[0])], int(count[0]))


def splits(rows: int, count: int) -> Iterator[tuple[Int[Tensor, "n1"], Int[Tensor, "n2"]]]:
    """The published splits: 90 % of a permutation for training, the rest for test, `count` times.

    One generator RandomState(1) draws the permutations one after the other.
    """
    generator = np.random.RandomState(1)
    for _ in range(count):
        order = torch.as_tensor(generator.permutation(rows))
        size = round(0.9 * rows)
        yield order[:size], order[size:]


def as_transitions(x: Float[Tensor, "b d"], y: Float[Tensor, "b"]) -> Transitions:
    """Regression as transitions without observation: x acts, y is the reward, one row an episode.

    A model with a reward head then learns y from x, and cross-fitting leaves out folds of rows.
    """
    nothing, never = x.new_zeros(len(x), 0), torch.zeros(len(x), dtype=torch.bool)
    return Transitions(nothing, x, y, nothing, never, never, torch.arange(len(x)))


def in_target_units(rmse: float, nll: float, std: float) -> tuple[float, float]:
    """RMSE and NLL of a target from those of the target divided by `std`."""
    return rmse * std, nll + math.log(std)


def _flags(objective: str) -> ObjectiveSpec:
    spec = OBJECTIVES.settings(objective)()
    if isinstance(spec, BilevelSettings):  # rows follow no other here, so there are no windows
        return replace(spec, outer_objective="one_step")
    if isinstance(spec, OuterSettings):
        return replace(spec, outer_learning_rate=LEARNING_RATE)
    return spec


def _evaluate(
    config: Config, flags: ObjectiveSpec, data: RegressionSet, train: Tensor, test: Tensor,
    seed: int,
) -> tuple[float, float]:  # fmt: skip
    """Test RMSE and NLL of the mixture of members, in the units of the target."""
    device = resolve_device(config.device)
    cut = len(train) - round(HELD_OUT * len(train))
    parts = [
        as_transitions(data.x[rows], data.y[rows]).to(device)
        for rows in (train[:cut], train[cut:], test)
    ]
    model = train_one(flags, parts[0], parts[1], seed, EPOCHS)
    on_test = one_step(model.network, *model.encode(parts[2]))
    std = float(model.target_standardizer.std)
    return in_target_units(on_test.rmse, on_test.nll, std)


def train_one(
    flags: ObjectiveSpec, fitted: Transitions, held_out: Transitions, seed: int, epochs: int
) -> DynamicsModel:
    """An ensemble after `epochs` of the rows to fit, each member at its best held-out epoch."""
    device = fitted.reward.device
    generator = torch.Generator(device).manual_seed(seed)
    with torch.device(device):
        model = DynamicsModel(
            0,
            fitted.action.shape[1],
            ModelSettings(members=MEMBERS, hidden=HIDDEN),
            learn_reward=True,
            kind=flags.kind,
            generator=generator,
        )
    model.fit_standardizers(fitted)
    held = Samples(*model.encode(held_out))
    batch_size = max(BATCH_SIZE, len(fitted) // STEPS_PER_EPOCH)
    per_epoch = max(1, len(fitted) // batch_size)
    steps = per_epoch * epochs
    objective = build(flags, model, fitted, held_out, steps=steps, generator=generator)
    trainer = Trainer(
        model.network, objective, Samples(*model.encode(fitted)), held, generator,
        FitSettings(batch_size=batch_size, learning_rate=LEARNING_RATE, steps=steps),
    )  # fmt: skip
    for _ in range(epochs):
        for _ in range(per_epoch):
            trainer.train_step()
        trainer.metrics()
    trainer.finish(0.0, stopped_early=False)
    return model


def table(name: str, rows: dict[str, Metrics]) -> str:
    """Mean and standard error over splits of every objective, then the published rows."""
    lines = [f"{name:<18} {'test RMSE':>16} {'test NLL':>16}"]
    for objective, metrics in rows.items():
        cells = (spread(metrics[key]) for key in ("rmse", "nll"))
        lines.append(f"{objective:<18} " + " ".join(f"{cell:>16}" for cell in cells))
    for source, (rmse, nll) in PUBLISHED.get(name, {}).items():
        lines.append(f"{source + ' *':<18} {f'{rmse:.2f}':>16} {f'{nll:.2f}':>16}")
    return "\n".join([*lines, "* as published"] if name in PUBLISHED else lines)


def spread(values: list[float]) -> str:
    """Mean ± standard error, or the only value."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{mean(values):.3f} ± {stdev(values) / len(values) ** 0.5:.3f}"
