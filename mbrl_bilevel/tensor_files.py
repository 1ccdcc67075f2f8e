"""Tensors and text in one safetensors file, with a checksum, written by rename."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mbrl_bilevel.files import one_line, parse_json, written_by_rename

TEXTS, CHECKSUM = "texts", "sha256"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Replaces the file at `path`; a crash at any moment leaves the old one or the new one.

    Raises:
        OSError: it cannot be written; what stood there is as before.
    """
    with written_by_rename(path) as temporary:
        write_tensors(temporary, tensors, texts)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Writes the file in place; the same contents are the same bytes.

    Raises:
        OSError: it cannot be written.
    """
    on_cpu = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    try:
        signed = {**texts, CHECKSUM: _digest(on_cpu, texts)}
        # As one text: safetensors writes several in an order of its own, another every time.
        save_file(on_cpu, path, metadata={TEXTS: json.dumps(signed, sort_keys=True)})
    except SafetensorError as error:  # raised in place of an OSError
        raise OSError(f"{path} cannot be written ({one_line(error)})") from None


def load_tensors(
    path: Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a file. One without a checksum is taken as it is.

    No more memory is taken than the file is long.

    Raises:
        ValueError: the file is damaged, in one line. OSError: it cannot be read.
    """
    try:
        with safe_open(path, "pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            texts = _texts(dict(file.metadata() or {}))
    except (SafetensorError, RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(one_line(error)) from None
    expected = texts.pop(CHECKSUM, None)
    if expected is not None and expected != _digest(tensors, texts):
        raise ValueError("its checksum does not fit its contents")
    return {name: t.to(device) for name, t in tensors.items()}, texts


def load_texts(path: Path) -> dict[str, str]:
    """The texts of a file alone, without its tensors and unchecked.

    Raises:
        ValueError: the file is damaged, in one line. OSError: it cannot be read.
    """
    try:
        with safe_open(path, "pt", device="cpu") as file:
            return _texts(dict(file.metadata() or {}))
    except (SafetensorError, RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(one_line(error)) from None


def _texts(metadata: dict[str, str]) -> dict[str, str]:
    """Those that `write_tensors` wrote as one, or others as they stand."""
    if TEXTS not in metadata:
        return metadata
    found = parse_json(metadata[TEXTS])
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise ValueError("its texts are none")
    return found


def _digest(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and bytes, in the order of the names."""
    found = hashlib.sha256(json.dumps(sorted(texts.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        if tensor.numel():
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
