"""`mbrl-bilevel COMMAND`: finds the command, parses its flags, prints its outcome."""

import importlib
import io
import json
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from mbrl_bilevel import __version__
from mbrl_bilevel.agents.main_script import is_being_read_again
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.flags.parse import parse_flat
from mbrl_bilevel.scripts.flags.shared import shared_flags
from mbrl_bilevel.scripts.flags.words import values_of
from mbrl_bilevel.scripts.plugins import load_plugins
from mbrl_bilevel.training.interruption import sigterm_interrupts

COMMANDS = {
    "demo": "the whole tour: collect, train, evaluate, plan; offline, in a few minutes",
    "collect": "collect a Minari data set with a shipped behaviour policy",
    "train-model": "train a dynamics model on a Minari data set",
    "eval-model": "evaluate dynamics models on held-out data",
    "train-agent": "train an agent, online or offline, model-based or model-free",
    "eval-agent": "evaluate agents in the real simulation, several side by side",
    "report": "one page of tables and figures about runs, with intervals over seeds",
    "sanity": "check the toy problems of the theory, pass or fail",
    "sweep": "objectives x data sets x agents x seeds, on this machine or a Ray cluster",
    "reproduce": "reproduce the tables of RESULTS.md",
    "bench": "throughput beside the machine's own limit",
}


def usage() -> str:
    rows = "\n".join(f"  {name:<12} {summary}" for name, summary in COMMANDS.items())
    return (
        f"mbrl-bilevel {__version__}\n\nusage: mbrl-bilevel COMMAND [FLAGS]\n\n{rows}\n\n"
        "`mbrl-bilevel COMMAND --help` lists the flags of a command."
    )


CLOSED_PIPE = 141  # as of a program that SIGPIPE ends


def main() -> None:
    """Exit code 0; 2 for bad input (one sentence on stderr); 1 for a failure; 130 or 143 after
    SIGINT (Ctrl-C) or SIGTERM; 141 where nobody reads the output any more, as after `| head`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may know ASCII only
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            sys.exit(run(sys.argv[1:]))
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _drop(sys.stdout, sys.stderr)
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        _drop(sys.stdout)
        sys.exit(f"mbrl-bilevel: the output cannot be written ({error.strerror})")


def _drop(*streams: Any) -> None:
    """What is still to be written goes nowhere, lest Python complain of it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with suppress(OSError, ValueError):  # no file, or a closed one
            if stream is not None:
                os.dup2(nowhere, stream.fileno())


def run(argv: list[str]) -> int:
    if is_being_read_again():
        raise SystemExit(1)  # the process that plays episodes must not run the command once more
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
    except BrokenPipeError:  # nobody reads the output
        raise
    except OSError as error:  # a full disk, a folder that cannot be read or written
        end, code = f"{error}{_how_to_go_on(argv)}", 1
    except (MemoryError, RuntimeError) as error:
        if not _is_for_want_of_memory(error):
            raise
        said = " ".join(str(error).split())[:200]
        end, code = f"not enough memory ({said}); choose smaller sizes", 1
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


def _is_for_want_of_memory(error: Exception) -> bool:
    """torch has no exception of its own for the memory of the CPU."""
    said = (
        "can't allocate memory",
        "not enough memory",
        "out of memory",
        "Storage size calculation",
    )
    return isinstance(error, MemoryError) or any(words in str(error) for words in said)


def _check_arguments(argv: list[str]) -> None:
    """InputError for an empty argument, or one in an encoding that this locale cannot express."""
    for before, argument in pairwise(["", *argv]):
        if argument == "" or (argument.startswith("--") and argument.endswith("=")):
            name = argument.rstrip("=") or before
            raise InputError(
                f"{name} is given an empty value, perhaps of an unset variable: give it one"
            )
        if not argument.isascii() and any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise InputError(
                f"{argument!a} is no text in this locale ({sys.getfilesystemencoding()}): set a "
                "UTF-8 locale such as LC_ALL=C.UTF-8, or use ASCII names"
            )


def _run(argv: list[str]) -> int:
    name = argv[0]
    _check_arguments(argv)
    command = parsed(name, argv[1:])
    module = importlib.import_module(f"mbrl_bilevel.scripts.{_module(name)}")
    import torch

    torch.set_flush_denormal(True)  # denormal numbers slow small networks on CPU many times over
    outcome = module.run(command)
    if shared_flags(command).json:
        print(outcome.text, file=sys.stderr, flush=True)
        print(json.dumps(outcome.results), flush=True)
    else:
        print(outcome.text, flush=True)
    return int(outcome.exit_code)


def parsed(name: str, argv: list[str]) -> Any:
    """The settings that the flags give; torch is imported only where a preset needs it.

    Raises:
        InputError: a flag that is unknown or out of range. SystemExit: help, or what tyro refuses.
    """
    load_plugins(values_of("plugin", argv))
    flags = importlib.import_module(f"mbrl_bilevel.scripts.flags.{_module(name)}")
    if hasattr(flags, "parse"):
        return flags.parse(argv)
    return parse_flat(flags.Config, argv, name, f"{COMMANDS[name][0].upper()}{COMMANDS[name][1:]}.")


def _module(command: str) -> str:
    return command.replace("-", "_")


def _how_to_go_on(argv: list[str]) -> str:
    """For a command that has begun a run which --resume continues."""
    outs = [b for a, b in pairwise(argv) if a == "--out"]
    outs += [a.removeprefix("--out=") for a in argv if a.startswith("--out=")]
    if not argv[0].startswith("train-") or not outs or not Path(outs[-1], "config.yaml").is_file():
        return ""
    again = argv if "--resume" in argv else [*argv, "--resume"]
    return f"; go on with: mbrl-bilevel {shlex.join(again)}"
