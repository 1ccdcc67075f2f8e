"""How many parameters the networks of a run have, by the shapes in its files."""

import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

NO_PARAMETERS = ("action_low", "action_high", "network.recalibration")


def policy_parameters(run: Path) -> int | None:
    """Of the actor in policy.safetensors; None where there is none, or it cannot be read."""
    return _count(run / "policy.safetensors", "")


def model_parameters(run: Path) -> int | None:
    """Of the network in model.safetensors, of all members, standardisers left out."""
    return _count(run / "model.safetensors", "network.")


def _count(path: Path, prefix: str) -> int | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            shapes = [file.get_slice(n).get_shape() for n in names if n not in NO_PARAMETERS]
    except (SafetensorError, OSError, RuntimeError):
        return None
    return sum(math.prod(shape) for shape in shapes)
