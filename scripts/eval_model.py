"""`eval-model`: judges a dynamics model on data it was not trained on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation import figures
from mbrl_bilevel.evaluation.k_step import KStep, k_step
from mbrl_bilevel.evaluation.one_step import OneStep, one_step
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts.command import Command, Outcome, resolve_device, say
from mbrl_bilevel.scripts.train_model import split
from mbrl_bilevel.training.run_folder import CONFIG


@dataclass(frozen=True, kw_only=True)
class Config(Command):
    """Flags of eval-model."""

    model: Path
    """A run folder of train-model."""
    dataset: str | None = None
    """Judge on the whole of this data set; default: on the test episodes of the model's own."""
    horizons: tuple[int, ...] = (1, 10, 50)
    """Steps ahead at which the open-loop error is reported."""


def run(config: Config) -> Outcome:
    device = resolve_device(config.device)
    if not config.horizons or min(config.horizons) < 1:
        raise InputError(f"--horizons {config.horizons}: name steps ahead of at least 1")
    model = DynamicsModel.load(config.model, device)
    test, source = _test_part(config)
    if test.observation.shape[1] != model.obs_dim or test.action.shape[1] != model.act_dim:
        raise InputError(
            f"{source} has {test.observation.shape[1]} observation and {test.action.shape[1]} "
            f"action dimensions, the model in {config.model} has {model.obs_dim} and "
            f"{model.act_dim}: choose the data set of the model's environment"
        )
    test = test.to(device)
    say(f"judging {config.model} on {len(test)} transitions of {source}")
    one = one_step(model.network.select(model.elites), *model.encode(test))
    generator = torch.Generator(device).manual_seed(config.seed)
    horizon = min(max(config.horizons), _longest_episode(test))
    many = k_step(model, test, horizon, generator)
    folder = config.model / "figures"
    folder.mkdir(exist_ok=True)
    for name, figure in (
        ("error_by_dimension", figures.error_by_dimension(one, model.target_names)),
        ("calibration", figures.calibration(one)),
        ("error_growth", figures.error_growth(many)),
    ):
        figures.save(figure, folder / f"{name}.png")
    found: dict[str, Any] = one.figures()
    found["k_step"] = {str(k): many.rmse[k - 1].item() for k in config.horizons if k <= horizon}
    found |= {"transitions": len(test), "source": source, "figures": str(folder)}
    found["seed"] = config.seed
    (config.model / "evaluation.json").write_text(json.dumps(found, indent=2) + "\n")
    return Outcome(found, _text(one, many, found["k_step"], folder))


def _test_part(config: Config) -> tuple[Transitions, str]:
    if config.dataset is not None:
        dataset = load_dataset(config.dataset)
        return dataset.transitions, dataset.id
    path = config.model / CONFIG
    if not path.is_file():
        raise InputError(f"{path} is missing: name the data to judge on with --dataset")
    trained = yaml.safe_load(path.read_text())
    dataset = load_dataset(trained["dataset"])
    test = split(dataset, trained["seed"], trained["max_transitions"])[2]
    return test, f"the test episodes of {dataset.id}"


def _longest_episode(transitions: Transitions) -> int:
    return int(torch.unique_consecutive(transitions.episode, return_counts=True)[1].max())


def _text(one: OneStep, many: KStep, k: dict[str, float], folder: Path) -> str:
    rows = [
        ("RMSE, one step", f"{one.rmse:.4f}"),
        ("NLL per dimension", f"{one.nll:.4f}"),
        ("R2", f"{one.r2:.4f}"),
        ("calibration error", f"{one.ece:.4f}"),
        *(
            (
                f"RMSE after {n} steps",
                f"{v:.4f}  (nothing changes: {many.persistence[int(n) - 1]:.4f})",
            )
            for n, v in k.items()
        ),
    ]
    return "\n".join(f"{a:<22} {b}" for a, b in rows) + f"\nfigures: {folder}"
