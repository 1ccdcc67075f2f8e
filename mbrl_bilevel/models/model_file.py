"""A model in a folder: its weights beside a description of what they are of."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import one_line, read_yaml, write_text
from mbrl_bilevel.tensor_files import load_tensors, save_tensors

WEIGHTS, DESCRIPTION = "model.safetensors", "model.yaml"
MISFIT = (  # what building a network raises for sizes that are wrong, or no sizes at all
    *(KeyError, IndexError, TypeError, ValueError, AttributeError),
    *(RuntimeError, OverflowError, MemoryError),
)

Model = TypeVar("Model")


def write_model(folder: Path, weights: dict[str, Tensor], description: Mapping[str, Any]) -> None:
    """Writes model.safetensors (with a checksum) and model.yaml into `folder`, each by rename.

    Raises:
        InputError: weights that are not finite. OSError: the folder cannot be written.
    """
    if not _finite(weights):
        raise InputError(
            f"a model whose weights are not finite is not saved to {folder}; train it again at "
            "a lower learning rate"
        )
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, weights, {})
    write_text(folder / DESCRIPTION, yaml.safe_dump(dict(description), sort_keys=False))


def read_model(
    folder: Path,
    build: Callable[[Any, dict[str, Tensor]], Model],
    device: torch.device | str = "cpu",
) -> Model:
    """What `build` makes of the description and the weights that `write_model` left in `folder`.

    Raises:
        InputError: no model there, or files that are damaged or do not fit each other.
    """
    if not (folder / DESCRIPTION).is_file() or not (folder / WEIGHTS).is_file():
        raise InputError(
            f"{folder} holds no model ({WEIGHTS} and {DESCRIPTION}); "
            "name a run folder of `mbrl-bilevel train-model`"
        )
    try:
        description = read_yaml(folder / DESCRIPTION)
        weights, _ = load_tensors(folder / WEIGHTS, device)
    except (ValueError, OSError) as error:
        raise InputError(
            f"the model in {folder} is damaged ({one_line(error)}); train it again"
        ) from None
    try:
        return build(description, weights)
    except (InputError, *MISFIT) as error:
        raise InputError(
            f"the model in {folder} does not fit its own description ({one_line(error)}); "
            "train it again"
        ) from None


def check_weights(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], members: int, targets: int
) -> None:
    """Holds what the weights of a `DynamicsModel` say against the types and ranges of its own.

    Raises:
        ValueError: they say what those of no model do, in one line.
    """
    for name, tensor in expected.items():
        if name in weights and weights[name].dtype != tensor.dtype:
            raise ValueError(f"{name} is {weights[name].dtype}, not {tensor.dtype}")
    if not _finite(weights):
        raise ValueError("its weights are not finite")
    elites, informative = weights["elites"], weights["informative"]
    if not 0 <= int(elites.min()) <= int(elites.max()) < members:
        raise ValueError("its elites are no members")
    known = (informative >= 0) & (informative < targets)
    if len(informative) == 0 or not bool(known.all() & (informative.diff() > 0).all()):
        raise ValueError("its informative targets are none that it has")
    for name in ("input_standardizer.std", "target_standardizer.std"):
        if not bool((weights[name] > 0).all()):
            raise ValueError("a standard deviation of its data is not positive")


def _finite(weights: Mapping[str, Tensor]) -> bool:
    return all(bool(v.isfinite().all()) for v in weights.values())
