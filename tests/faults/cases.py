"""The commands that are killed, and what must be the same at their end."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.tensor_files import load_tensors

DATASET = "pendulum/faults-v0"  # made once, for the commands that learn
SMALL = ("--members", "2", "--hidden", "16", "16", "--steps", "800", "--batch-size", "64")
TRAIN = ("train-model", "--dataset", DATASET, *SMALL, "--checkpoint-seconds", "0.1")
AGENT = (
    *("train-agent", "--env", "Pendulum-v1", "--steps", "400", "--start-steps", "150"),
    *("--policy-hidden", "16", "--log-every", "50", "--evaluate-every", "200", "--episodes", "1"),
    *("--updates-per-step", "1", "--checkpoint-seconds", "0.1"),
)
SMALL_MODEL = (
    *("--refit-every", "50", "--model-steps", "20", "--rollouts", "50"),
    *("--members", "2", "--hidden", "16", "16"),
)
State = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A command: its flags without the place, the flag that names it, what else to go on."""

    argv: tuple[str, ...]
    place: str = "--out"
    resume: tuple[str, ...] = ("--resume",)

    def at(self, place: Path, again: bool = False) -> list[str]:
        """The whole command line; a data set's place is the last part of the path."""
        value = str(place) if self.place == "--out" else f"faults/{place.name}-v0"
        return [*self.argv, self.place, value, *(self.resume if again else ())]

    def started(self, place: Path) -> bool:
        """Whether there is anything to resume."""
        return bool(self.resume) and (place / "config.yaml").is_file()

    def state(self, place: Path) -> State | None:
        """All that must be the same in the end, None where it is not finished."""
        return run_state(place) if self.place == "--out" else dataset_state(place)


def run_state(folder: Path) -> State | None:
    """Weights and metrics of a run, but for what a clock says."""
    if not (folder / "summary.json").is_file():
        return None
    weights: State = {
        path.name: {k: _digest(v) for k, v in load_tensors(path)[0].items()}
        for path in sorted(folder.glob("*.safetensors"))
        if not path.name.startswith("checkpoint")
    }
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    summary = json.loads((folder / "summary.json").read_text())
    metrics = [_timeless(json.loads(line)) for line in lines]
    return weights | {"metrics": metrics, "summary": _timeless(summary)}


def dataset_state(place: Path) -> State | None:
    """Every transition of a data set, None where there is none."""
    try:
        data = load_dataset(f"faults/{place.name}-v0")
    except InputError as error:
        if "no data set" not in str(error):
            raise
        return None
    return {k: _digest(v) for k, v in vars(data.transitions).items() if torch.is_tensor(v)}


def _timeless(metrics: State) -> State:
    return {k: v for k, v in metrics.items() if "second" not in k and k != "run"}


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


CASES: dict[str, Case] = {
    "train-model nll": Case(TRAIN),
    "train-model two_means": Case((*TRAIN, "--objective", "two_means")),
    "train-agent sac": Case((*AGENT, "--agent", "sac")),
    "train-agent mbpo": Case((*AGENT, *SMALL_MODEL, "--agent", "mbpo")),
    "collect": Case(
        ("collect", "--env", "Pendulum-v1", "--policy", "random", "--steps", "6000", "--overwrite"),
        place="--dataset",
        resume=(),
    ),
}

Start = Callable[..., Any]
