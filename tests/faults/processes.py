"""Commands in processes of their own, which can be killed: forked, for imports take seconds."""

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

NOBODY = 65534
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *(
            f"mbrl_bilevel.scripts.{name}"
            for name in ("main", "train_model", "train_agent", "collect")
        ),
        *("torch._dynamo", "torch.utils.tensorboard", "minari.data_collector"),
    ]
)


class Command:
    """`mbrl-bilevel ARGV` in a real process; what it says on stderr and stdout goes to a file.

    `file_limit`: no file may grow beyond so many bytes, as on a full disk. `unprivileged`: it
    may write only where everybody may.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        file_limit: int | None = None,
        unprivileged: bool = False,
    ) -> None:
        descriptor, log = tempfile.mkstemp(prefix="mbrl-faults-", suffix=".log")
        os.close(descriptor)
        self.log = Path(log)
        self.log.chmod(0o666)
        self.process: BaseProcess = FORKS.Process(
            target=_main,
            args=(list(argv), dict(environment or {}), str(log), file_limit, unprivileged),
        )
        self.started = time.monotonic()
        self.process.start()

    def kill(self, number: int) -> bool:
        """Sends a signal; whether the process was still there."""
        assert self.process.pid is not None
        alive = self.process.is_alive()
        if alive:
            os.kill(self.process.pid, number)
        return alive

    def end(self, timeout: float = 120.0) -> tuple[int, str]:
        """Its exit code (128 + n where signal n killed it) and what it said."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError(f"still running after {timeout} s: {self.log.read_text()[-500:]}")
        self.seconds = time.monotonic() - self.started
        code = self.process.exitcode
        assert code is not None
        said = self.log.read_text()
        self.log.unlink()
        return code if code >= 0 else 128 - code, said

    def wait_for(self, path: Path, timeout: float = 120.0) -> None:
        """Until a file holds something, or the process is gone."""
        end = time.monotonic() + timeout
        while not (path.exists() and path.stat().st_size) and self.process.is_alive():
            assert time.monotonic() < end, f"no {path} after {timeout} s"
            time.sleep(0.005)


def _main(
    argv: list[str],
    environment: dict[str, str],
    log: str,
    file_limit: int | None,
    unprivileged: bool,
) -> None:
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    import torch

    from mbrl_bilevel.scripts.main import run

    torch.set_num_threads(1)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if unprivileged and os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    sys.exit(run(argv))
