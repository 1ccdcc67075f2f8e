"""Files: written whole or not at all, and read without trusting who wrote them."""

import ctypes
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

LARGEST_TEXT = 1 << 24  # bytes of a description, a configuration or metrics: they hold kilobytes
DEEPEST = 64  # lists and mappings inside each other
AT_FDCWD, EXCHANGE = -100, 2  # of Linux's renameat2


@contextmanager
def written_by_rename(path: Path) -> Iterator[Path]:
    """Gives a temporary file beside `path` to write, and renames it once it is on the disk.

    A crash at any moment leaves what stood at `path` before, or all of the new file. What fails
    leaves no temporary file behind.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # some network file systems refuse; the rename itself has been made
        sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replaces a file of text, by rename."""
    with written_by_rename(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folders(path: Path) -> list[Path]:
    """Makes a folder and its parents; returns those that were not there, the deepest first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def remove_folders(folders: Iterable[Path]) -> None:
    """Removes each folder that nothing has come to stand in."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def sync(path: Path) -> None:
    """Puts a file, or a folder's list of files, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(a: Path, b: Path) -> None:
    """Lets two folders or files change places, in one step where the system can (Linux)."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 and not renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), EXCHANGE):
        return
    between = b.with_name(f".{b.name}")
    b.rename(between)
    a.rename(b)
    between.rename(a)


def read_yaml(path: Path, loader: type[Any] = yaml.SafeLoader) -> Any:
    """Plain values of a YAML file: no tags of objects, no aliases, of bounded size and depth.

    `loader` is one of PyYAML's that makes no objects: SafeLoader, or BaseLoader for text alone.

    Raises:
        ValueError: none of that, in one line. OSError: the file cannot be read.
    """
    text = _text(path)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it holds aliases, which this package never writes")
            if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
                depth += 1
            elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                depth -= 1
            if depth > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} deep")
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(one_line(error)) from None


def read_json(path: Path) -> Any:
    """Plain values of a JSON file of bounded size.

    Raises:
        ValueError: none of that, in one line. OSError: the file cannot be read.
    """
    return parse_json(_text(path))


def parse_json(text: str) -> Any:
    """Plain values of JSON.

    Raises:
        ValueError: not JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def harmless(name: object) -> bool:
    """Whether a name out of a file can stand in figures, curves and on the terminal as it is."""
    return isinstance(name, str) and len(name) <= 200 and name.isprintable() and "$" not in name


def one_line(error: BaseException) -> str:
    """An error's message, fit for one sentence."""
    return " ".join(str(error).split())[:200]


def _text(path: Path) -> str:
    with open(path, "rb") as file:
        raw = file.read(LARGEST_TEXT + 1)
    if len(raw) > LARGEST_TEXT:
        raise ValueError(f"it is larger than {LARGEST_TEXT:,} bytes")
    return raw.decode()
