"""Checkpoints: the two newest states of a run, each a safetensors file with a checksum."""

import json
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import parse_json, written_by_rename
from mbrl_bilevel.tensor_files import load_tensors, load_texts, write_tensors

FILE, PREVIOUS = "checkpoint.safetensors", "checkpoint-previous.safetensors"
DAMAGED = "checkpoint-damaged.safetensors"


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Makes this the folder's newest checkpoint and keeps the one before as its second.

    A crash at any moment, or a disk that is full, leaves at least what was the newest.

    Raises:
        OSError: it cannot be written.
    """
    newest = folder / FILE
    with written_by_rename(newest) as temporary:
        write_tensors(temporary, tensors, {"state": json.dumps(state)})
        if newest.is_file():
            newest.replace(folder / PREVIOUS)  # killed after this: that one is loaded


def load_checkpoint(folder: Path, device: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The folder's newest checkpoint that is whole, or None where there is none yet.

    A damaged newest one is set aside under another name, with a UserWarning, so that the next
    save cannot put it in the place of the one before.

    Raises:
        InputError: none of those that are there is whole.
    """
    newest, previous = folder / FILE, folder / PREVIOUS
    there = [path for path in (newest, previous) if path.is_file()]
    faults: list[str] = []
    for path in there:
        try:
            tensors, texts = load_tensors(path, device)
            state = parse_json(texts["state"])
            if not isinstance(state, dict):
                raise ValueError("it holds no state")
        except (KeyError, ValueError, OSError) as error:
            faults.append(f"{path} is damaged ({error})")
            continue
        if faults:
            _set_aside(newest, folder / DAMAGED)
            warnings.warn(
                f"the checkpoint {faults[0]}; going on from the one before, {path}", stacklevel=2
            )
        return tensors, state
    if there:
        raise InputError(f"the checkpoint {'; '.join(faults)}; start a new run in another folder")
    return None


def checkpoint_step(folder: Path) -> int:
    """The step of the folder's newest checkpoint; 0 where there is none, or it is damaged."""
    try:
        return int(parse_json(load_texts(folder / FILE)["state"])["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _set_aside(path: Path, aside: Path) -> None:
    with suppress(OSError):  # a folder that can only be read is never saved to either
        path.replace(aside)
