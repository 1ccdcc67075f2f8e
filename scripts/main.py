"""`mbrl-bilevel COMMAND`: finds the command, parses its flags, prints its outcome."""

import importlib
import json
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import tyro

from mbrl_bilevel import __version__
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.training.interruption import sigterm_interrupts

COMMANDS = {
    "demo": "the whole tour offline, in a few minutes",
    "collect": "make a real Minari data set with a shipped behaviour policy",
    "train-model": "train a dynamics model from a Minari data set",
    "eval-model": "judge a dynamics model on held-out data",
    "train-agent": "train a policy, online or from a data set, in a learned model or without",
    "eval-agent": "returns of agents in the real simulation, side by side",
    "sanity": "the closed worlds of the theory, pass or fail",
    "reproduce": "the tables of RESULTS.md: dynamics, published, uci, sac",
    "bench": "throughput figures beside the machine's own limit",
}


def usage() -> str:
    rows = "\n".join(f"  {name:<12} {summary}" for name, summary in COMMANDS.items())
    return (
        f"mbrl-bilevel {__version__}\n\nusage: mbrl-bilevel COMMAND [FLAGS]\n\n{rows}\n\n"
        "`mbrl-bilevel COMMAND --help` lists the flags of a command."
    )


def main() -> None:
    """Exit code 0; 2 for bad input (one sentence on stderr); 1 for a failure; 130 or 143 after
    SIGINT (Ctrl-C) or SIGTERM."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(__version__)
        return 0
    if argv[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"mbrl-bilevel: unknown command {argv[0]!r}; choose one of {known}", file=sys.stderr)
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # torch's threads spin while they wait for each other: for long, and a machine with other work
    # to do is thirty times slower on small networks; not at all, and an idle one loses a third.
    # Read when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        with sigterm_interrupts(), _quiet_threads():
            return _run(argv)
    except InputError as error:
        end, code = str(error), 2
    except OSError as error:  # a full disk, a folder that cannot be read or written
        end, code = f"{error}{_how_to_go_on(argv)}", 1
    except KeyboardInterrupt as stop:
        what = str(stop) or "interrupted by SIGINT"
        end, code = f"{what}{_how_to_go_on(argv)}", getattr(stop, "exit_code", 130)
    print(f"mbrl-bilevel {argv[0]}: {end}", file=sys.stderr)
    return code


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """TensorBoard's thread prints a traceback of a full disk, and raises it in ours again."""

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not issubclass(failed.exc_type, OSError):
            before(failed)

    before, threading.excepthook = threading.excepthook, hook
    try:
        yield
    finally:
        threading.excepthook = before


def _run(argv: list[str]) -> int:
    name = argv[0]
    module = importlib.import_module(f"mbrl_bilevel.scripts.{name.replace('-', '_')}")
    command = tyro.cli(
        module.Config,
        prog=f"mbrl-bilevel {name}",
        args=argv[1:],
        description=COMMANDS[name],
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    import torch

    torch.set_flush_denormal(True)  # denormal numbers slow small networks on CPU many times over
    outcome = module.run(command)
    if command.json:
        print(outcome.text, file=sys.stderr, flush=True)
        print(json.dumps(outcome.figures), flush=True)
    else:
        print(outcome.text, flush=True)
    return int(outcome.exit_code)


def _how_to_go_on(argv: list[str]) -> str:
    """For a command that has begun a run which --resume continues."""
    outs = [b for a, b in pairwise(argv) if a == "--out"]
    outs += [a.removeprefix("--out=") for a in argv if a.startswith("--out=")]
    if not argv[0].startswith("train-") or not outs or not Path(outs[-1], "config.yaml").is_file():
        return ""
    again = argv if "--resume" in argv else [*argv, "--resume"]
    return f"; go on with: mbrl-bilevel {shlex.join(again)}"
