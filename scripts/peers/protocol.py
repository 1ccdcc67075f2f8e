"""Rounds of a peer in a process of another Python: a line asks for one, a line answers.

The process is given a specification as JSON by its command line. It answers "ready {versions}" once
it is set up, then, to every line "run", the seconds that one round took. Other lines, and the end
of its input, end it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from types import TracebackType
from typing import Any

Spec = Mapping[str, Any]


def serve(prepare: Callable[[Spec], Callable[[], object]], *packages: str) -> None:
    """The peer's side: prepares by the specification, then runs a round for each line "run".

    `packages` are those whose versions it tells. What libraries print goes to stderr.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    spec = json.loads(sys.argv[1])
    if "threads" in spec:
        import torch

        torch.set_num_threads(spec["threads"])
    call = prepare(spec)
    answers.write(f"ready {json.dumps({name: version(name) for name in packages})}\n")
    for line in sys.stdin:
        if line.strip() != "run":
            break
        started = time.perf_counter()
        call()
        answers.write(f"{time.perf_counter() - started!r}\n")


class Peer:
    """Our side: the process, from entering to leaving a `with`; `run` gives a round's seconds.

    Args:
        command: program and arguments; the specification becomes one argument more.

    Raises:
        ChildProcessError: it ended, or answered something else; its last line of stderr is named.
    """

    def __init__(self, command: Sequence[str], spec: Spec) -> None:
        self.name = command[-1]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, which close() closes
        try:
            self.process = subprocess.Popen(
                [*command, json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                bufsize=1,
            )
        except OSError:
            self.errors.close()
            raise
        try:
            word, _, versions = self._line().partition(" ")
            if word != "ready":
                raise self._failed(f"answered {word!r} in place of 'ready'")
            self.versions: dict[str, str] = json.loads(versions)
        except BaseException:
            self.close()
            raise

    def run(self) -> float:
        """Seconds of one round."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("run\n")
        except BrokenPipeError:
            raise self._failed("ended") from None
        line = self._line()
        try:
            return float(line)
        except ValueError:
            raise self._failed(f"answered {line!r} in place of seconds") from None

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self._failed("ended")
        return line.strip()

    def _failed(self, what: str) -> ChildProcessError:
        self.errors.seek(0)
        said = [line.strip() for line in self.errors if line.strip()]
        last = f": {said[-1]}" if said else ""
        return ChildProcessError(f"the peer {self.name} {what}{last}")

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
