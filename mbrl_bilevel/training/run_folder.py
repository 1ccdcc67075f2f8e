"""A run's folder: its configuration, its metrics and its TensorBoard events."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from torch.utils.tensorboard import SummaryWriter

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import (
    make_folders,
    parse_json,
    read_yaml,
    remove_folders,
    sync,
    write_text,
)
from mbrl_bilevel.training.folder_lock import LOCK, FolderLock
from mbrl_bilevel.training.tensorboard import Layout, write_end, write_start

CONFIG, METRICS, SUMMARY = "config.yaml", "metrics.jsonl", "summary.json"
UNSTARTED = (LOCK, f".{CONFIG}")  # all that a run leaves that is killed before its first step


class RunFolder:
    """Opens a folder for one run and writes down what happens in it.

    config.yaml holds the resolved configuration, metrics.jsonl a line per evaluation,
    summary.json the end, and TensorBoard's event files the curves. While it is open no other run
    can open the folder, in this process or another.

    Raises:
        InputError: a folder that is in use, that holds something else, or that cannot be written.
    """

    def __init__(self, path: Path | str, config: Mapping[str, Any], resume: bool = False) -> None:
        self.path = Path(path)
        self._writer: SummaryWriter | None = None
        self._lock: FolderLock | None = None
        self._made: list[Path] = []
        self.config, self.resumed = dict(config), resume
        try:
            if (self.path / LOCK).is_file():  # a run that goes on is named before what it wrote
                self._lock = FolderLock(self.path)
            self._check(config, resume)
            if self._lock is None:
                self._made = make_folders(self.path)
                self._lock = FolderLock(self.path)
                self._check(config, resume)  # what another run did in between
            write_text(self.path / CONFIG, yaml.safe_dump(self.config, sort_keys=False))
        except OSError as error:
            self._release()
            raise InputError(
                f"the output folder {self.path} cannot be written ({error.strerror or error}); "
                "choose another --out"
            ) from None
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _check(self, config: Mapping[str, Any], resume: bool) -> None:
        if not resume:
            self._refuse_what_is_there()
        elif not (self.path / CONFIG).is_file():
            raise InputError(f"--resume: {self.path} holds no run to continue; leave --resume out")
        else:
            self._refuse_another_config(config)

    def _refuse_what_is_there(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out {self.path} is a file; choose a folder")
        if self.path.is_dir() and any(p.name not in UNSTARTED for p in self.path.iterdir()):
            raise InputError(
                f"the output folder {self.path} is not empty and nothing is overwritten; "
                "choose another --out, or continue the run in it with --resume"
            )

    def _refuse_another_config(self, config: Mapping[str, Any]) -> None:
        try:
            earlier = read_yaml(self.path / CONFIG)
        except ValueError as error:
            raise InputError(
                f"{self.path / CONFIG} is damaged ({error}): the flags of the run are lost; start "
                "a new run in another folder"
            ) from None
        if not isinstance(earlier, dict):
            raise InputError(f"{self.path / CONFIG} is damaged: it holds no configuration")
        for name, value in config.items():
            if name not in earlier:
                raise InputError(
                    f"--resume: the run in {self.path} began before there was a setting {name}: "
                    "choose another --out, or go on with the version that began it"
                )
            if earlier[name] != value:
                raise InputError(
                    f"--resume: {name} is {value} now and was {earlier[name]} when the run in "
                    f"{self.path} began; give the same value, or choose another --out"
                )

    def continue_from(self, step: int, layout: Layout | None = None) -> None:
        """Drops metrics past `step` (0: all) and opens TensorBoard so that it forgets them too.

        With a `layout` TensorBoard shows its charts, and the configuration as hyper-parameters.
        """
        metrics = self.path / METRICS
        kept = [line for line in self._whole_lines() if parse_json(line)["step"] <= step]
        write_text(metrics, "".join(line + "\n" for line in kept))
        if self._writer is not None:
            self._writer.close()
        self._writer = SummaryWriter(str(self.path), purge_step=step + 1 if step else None)
        if layout is not None:
            write_start(self._writer, self.config, layout)

    def _whole_lines(self) -> Iterator[str]:
        """Lines of metrics.jsonl up to one that a crash has cut, or damage has spoilt."""
        metrics = self.path / METRICS
        if not metrics.is_file():
            return
        with open(metrics, errors="replace") as file:
            for line in file:
                try:
                    whole = isinstance(parse_json(line)["step"], int)
                except (ValueError, TypeError, KeyError):
                    whole = False
                if not whole:
                    return
                yield line.rstrip("\n")

    @property
    def tensorboard(self) -> SummaryWriter:
        if self._writer is None:
            self._writer = SummaryWriter(str(self.path))
        return self._writer

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """One line in metrics.jsonl and one point of each TensorBoard curve."""
        with open(self.path / METRICS, "a") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            self.tensorboard.add_scalar(name, value, step)

    def sync(self) -> None:
        """Puts the metrics on the disk, before a checkpoint that counts on them."""
        if (self.path / METRICS).is_file():
            sync(self.path / METRICS)

    def summarize(self, results: Mapping[str, Any]) -> None:
        """Writes summary.json: the run has succeeded."""
        write_text(self.path / SUMMARY, json.dumps(dict(results), indent=2) + "\n")
        write_end(self.tensorboard)

    def figures(self) -> Path:
        """The folder of figures, made when it is first asked for."""
        folder = self.path / "figures"
        folder.mkdir(exist_ok=True)
        return folder

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError:  # a disk that is full
            if error is None:
                raise
        finally:
            if isinstance(error, (InputError, MemoryError, RuntimeError)) and not self.resumed:
                self._leave_nothing()
            self._release()

    def _leave_nothing(self) -> None:
        """A run that bad input, or want of memory, ended at once is no obstacle to the next."""
        metrics = self.path / METRICS
        if metrics.exists() and metrics.stat().st_size:
            return
        for name in (CONFIG, METRICS, LOCK):
            (self.path / name).unlink(missing_ok=True)
        for events in self.path.glob("events.out.tfevents.*"):
            events.unlink()
        remove_folders(self._made)
