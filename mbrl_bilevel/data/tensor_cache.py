"""Transitions of data sets as flat tensors, kept beside no data set but in the user's cache folder.

An HDF5 file of many short episodes takes seconds to open array by array; the same numbers in one
safetensors file are mapped into memory at once.
"""

import hashlib
import json
import os
import warnings
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.files import sync
from mbrl_bilevel.tensor_files import load_tensors, write_tensors

FORMAT = "1"  # of what is kept; files of another are made anew
LEAST_BYTES = 1 << 20  # of an HDF5 file: smaller ones are read as fast
SOURCE, DOUBTS = "source", "doubts"


class TensorCache:
    """What is kept of one data set; `folder` holds its main_data.hdf5 and metadata.json.

    It is good as long as the HDF5 file has the size and the times of last change that it had, and
    metadata.json the same bytes. Files lie in `kept_in`/datasets and may be deleted at any time.
    """

    def __init__(self, folder: Path, kept_in: Path) -> None:
        data = (folder / "main_data.hdf5").resolve()
        found = data.stat()
        self.worth_it = found.st_size >= LEAST_BYTES
        described = hashlib.sha256((folder / "metadata.json").read_bytes()).hexdigest()
        # Both: cp -p, rsync and tar give other contents the modification time of their original.
        times = found.st_mtime_ns, found.st_ctime_ns
        stamp = [FORMAT, str(data), found.st_size, *times, described]
        self.source = json.dumps(stamp)
        # By the path alone: a data set that was written anew takes the place of its former self.
        name = hashlib.sha256(str(data).encode()).hexdigest()[:32]
        self.path = kept_in / "datasets" / f"{name}.safetensors"

    def read(self) -> tuple[Transitions, list[str]] | None:
        """The transitions, memory mapped, and the warnings that came with them.

        None where there are none, or they are damaged or of other contents.
        """
        try:
            tensors, texts = load_tensors(self.path)
            if texts.get(SOURCE) != self.source:
                return None
            doubts = json.loads(texts[DOUBTS])
            return _transitions(tensors), doubts
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, transitions: Transitions, doubts: list[str]) -> None:
        """Keeps them, or warns that they cannot be kept."""
        columns = {f.name: getattr(transitions, f.name) for f in fields(transitions)}
        tensors = {name: column for name, column in columns.items() if column is not None}
        # Of this call: threads, and processes of several machines, may write the same file at once.
        temporary = self.path.with_name(f".{self.path.name}-{uuid4().hex}")
        try:
            # For the owner alone: the data set may be private.
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            texts = {SOURCE: self.source, DOUBTS: json.dumps(doubts)}
            write_tensors(temporary, tensors, texts)
            sync(temporary)
            temporary.replace(self.path)
        except OSError as error:
            warnings.warn(
                f"the tensors of a data set cannot be kept in {self.path.parent} "
                f"({error.strerror or error}): it will be read from its HDF5 file again; set "
                "XDG_CACHE_HOME to a folder that you may write, or load without the cache",
                stacklevel=3,
            )
        finally:
            with suppress(OSError):
                temporary.unlink()


def cache_folder() -> Path | None:
    """$XDG_CACHE_HOME/mbrl-bilevel, by default in ~/.cache; None for a user without a home."""
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # A relative one is to be ignored, says the XDG specification; "" is one too.
    home = chosen if chosen.is_absolute() else Path(os.path.expanduser("~"), ".cache")
    return home / "mbrl-bilevel" if home.is_absolute() else None


def _transitions(tensors: dict[str, Tensor]) -> Transitions:
    columns: dict[str, Any] = dict.fromkeys((f.name for f in fields(Transitions)), None)
    if not tensors.keys() <= columns.keys():
        raise KeyError("columns of something else")
    found = Transitions(**(columns | tensors))
    if any(len(column) != len(found) for column in tensors.values()):
        raise ValueError("columns of several lengths")
    return found
