"""One trial in a process of its own: the function that Ray calls, on whichever node.

torch is imported in here alone, so that what it reads from the environment is set before.
"""

import importlib
import json
import os
import socket
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import one_line, write_text
from mbrl_bilevel.scripts.sweeps.folder import SweepFolder, last_lines

LOCK_SECONDS = 90.0  # until the process of a lost node must have let go of the run folder
LOST_AT_ONE_STEP = 3  # starts of a sweep from one step, after which a trial is given up


@dataclass(frozen=True)
class Order:
    """What a node is told of a trial.

    words: the command line, the last of it where it computes and writes. submission: tells
    one that Ray makes again from another. environment: variables that decide where data sets lie.
    """

    name: str
    words: list[str]
    run: Path
    trains: bool
    out: Path
    cpus: int
    submission: str
    directory: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """How a trial ended; `stopped` is one that can go on, `sentence` why another failed."""

    name: str
    state: Literal["finished", "failed", "stopped"]
    sentence: str = ""


def run_trial(order: Order) -> Report:
    """Runs a trial, or goes on with it; a finished one is left as it is.

    Whatever the trial raises is its report: only the loss of this process makes Ray try again.
    """
    folder = SweepFolder(order.out)
    if folder.result(order.name).is_file():  # finished by a process that was lost after it
        return Report(order.name, "finished")
    _set_up(order)
    from mbrl_bilevel.training.interruption import sigterm_interrupts

    with sigterm_interrupts(), _logged(folder.log(order.name)):
        try:
            starts = _note_start(order, folder)
            results = _run(order)
            found = {"trial": order.name, "command": order.words[0], "results": results}
            text = json.dumps(found | {"starts": starts}, indent=2)
            write_text(folder.result(order.name), text + "\n")
            return Report(order.name, "finished")
        except KeyboardInterrupt as stop:
            return Report(order.name, "stopped", str(stop))
        except SystemExit as end:  # a training that diverged
            prefix = f"mbrl-bilevel {order.words[0]}: "
            return Report(order.name, "failed", str(end).removeprefix(prefix))
        except (InputError, OSError) as error:
            return Report(order.name, "failed", str(error))
        except Exception as error:
            traceback.print_exc()
            said = f"{type(error).__name__}: {one_line(error)}; see {folder.log(order.name)}"
            return Report(order.name, "failed", said)


def _set_up(order: Order) -> None:
    """The directory and the environment of the sweep's own process; torch as a command has it."""
    if os.path.isdir(order.directory):
        os.chdir(order.directory)
    os.environ.update(order.environment)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ["TQDM_DISABLE"] = "1"
    import torch

    from mbrl_bilevel.products import plain_products

    torch.set_num_threads(order.cpus)
    torch.set_flush_denormal(True)
    plain_products()  # the process may have run another trial before


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """What is said meanwhile goes to the end of a file."""
    with open(path, "a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        yield


def _note_start(order: Order, folder: SweepFolder) -> int:
    """Waits until no lost process writes to the run folder; returns how often the trial began.

    Raises:
        InputError: its process was lost time and again at the same step.
    """
    from mbrl_bilevel.training.checkpoint import checkpoint_step
    from mbrl_bilevel.training.folder_lock import is_locked

    until = time.monotonic() + LOCK_SECONDS
    while order.trains and is_locked(order.run) and time.monotonic() < until:
        time.sleep(0.5)
    step = checkpoint_step(order.run)
    path = folder.starts(order.name)
    earlier = last_lines(path, 1 << 20)
    lost = [one for one in earlier if (one["submission"], one["step"]) == (order.submission, step)]
    if len(lost) >= LOST_AT_ONE_STEP:
        nodes = ", ".join(dict.fromkeys(one["node"] for one in lost))
        raise InputError(
            f"its process was lost {len(lost)} times at step {step} (nodes: {nodes}), perhaps for "
            "want of memory: give it more by --cpus-per-trial or --concurrent, or smaller sizes"
        )
    line = {
        "submission": order.submission,
        "step": step,
        "node": socket.gethostname(),
        "pid": os.getpid(),
    }
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")
    return len(earlier) + 1


def _run(order: Order) -> dict[str, Any]:
    from mbrl_bilevel.scripts.main import parsed
    from mbrl_bilevel.training.run_folder import CONFIG

    command, *words = order.words
    if order.trains and (order.run / CONFIG).is_file():
        words.append("--resume")
    config = parsed(command, words)
    module = importlib.import_module(f"mbrl_bilevel.scripts.{command.replace('-', '_')}")
    results: dict[str, Any] = module.run(config).results
    return results
