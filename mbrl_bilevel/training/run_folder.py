"""A run's folder: its configuration, its metrics and its TensorBoard events."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from torch.utils.tensorboard import SummaryWriter

from mbrl_bilevel.errors import InputError

CONFIG, METRICS, SUMMARY = "config.yaml", "metrics.jsonl", "summary.json"


class RunFolder:
    """Opens a folder for one run and writes down what happens in it.

    config.yaml holds the resolved configuration, metrics.jsonl a line per evaluation,
    summary.json the end, and TensorBoard's event files the curves.
    """

    def __init__(self, path: Path | str, config: Mapping[str, Any], resume: bool = False) -> None:
        self.path = Path(path)
        started = (self.path / CONFIG).is_file()
        if resume and not started:
            raise InputError(f"--resume: {self.path} holds no run to continue; leave --resume out")
        if not resume:
            self._refuse_what_is_there()
        else:
            self._refuse_another_config(config)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / CONFIG).write_text(yaml.safe_dump(dict(config), sort_keys=False))
        except OSError as error:
            raise InputError(
                f"the output folder {self.path} cannot be written ({error.strerror}); "
                "choose another --out"
            ) from None
        self._writer: SummaryWriter | None = None

    def _refuse_what_is_there(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out {self.path} is a file; choose a folder")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise InputError(
                f"the output folder {self.path} is not empty and nothing is overwritten; "
                "choose another --out, or continue the run in it with --resume"
            )

    def _refuse_another_config(self, config: Mapping[str, Any]) -> None:
        try:
            earlier = yaml.safe_load((self.path / CONFIG).read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path / CONFIG} is damaged ({error})") from None
        if not isinstance(earlier, dict):
            raise InputError(f"{self.path / CONFIG} is damaged: it holds no configuration")
        for name, value in config.items():
            if name not in earlier or earlier[name] != value:
                raise InputError(
                    f"--resume: {name} is {value} now and was {earlier.get(name)} when the run in "
                    f"{self.path} began; give the same value, or choose another --out"
                )

    def continue_from(self, step: int) -> None:
        """Drops metrics past `step` (0: all) and opens TensorBoard so that it forgets them too."""
        metrics = self.path / METRICS
        lines = metrics.read_text().splitlines() if metrics.is_file() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        metrics.write_text("".join(line + "\n" for line in kept))
        self._writer = SummaryWriter(str(self.path), purge_step=step + 1 if step else None)

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

    def summarize(self, figures: Mapping[str, Any]) -> None:
        """Writes summary.json."""
        (self.path / SUMMARY).write_text(json.dumps(dict(figures), indent=2) + "\n")

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
        if self._writer is not None:
            self._writer.close()
