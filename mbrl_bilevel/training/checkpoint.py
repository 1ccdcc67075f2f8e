"""Checkpoints: one safetensors file of tensors and a JSON state, written by rename."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mbrl_bilevel.errors import InputError

FILE = "checkpoint.safetensors"


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replaces the folder's checkpoint; a crash at any moment leaves the old one or the new one."""
    temporary = folder / f".{FILE}"
    save_file(
        {name: t.contiguous() for name, t in tensors.items()},
        temporary,
        metadata={"state": json.dumps(state)},
    )
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(folder / FILE)


def load_checkpoint(folder: Path, device: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The folder's checkpoint, or None where there is none yet.

    Raises:
        InputError: the file is there but damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt", device=device) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(file.metadata()["state"])
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"the checkpoint {path} is damaged ({error}); start a new run in another folder"
        ) from None
