"""`mbrl-bilevel COMMAND`: finds the command, parses its flags, prints its outcome."""

import importlib
import json
import os
import sys

import tyro

from mbrl_bilevel import __version__
from mbrl_bilevel.errors import InputError

COMMANDS = {
    "demo": "the whole tour offline, in a few minutes",
    "collect": "make a real Minari data set with a shipped behaviour policy",
    "train-model": "train a dynamics model from a Minari data set",
    "eval-model": "judge a dynamics model on held-out data",
    "eval-agent": "returns of agents in the real simulation, side by side",
    "sanity": "the closed worlds of the theory, pass or fail",
    "reproduce": "the tables of RESULTS.md: dynamics, published, uci",
    "bench": "throughput figures beside the machine's own limit",
}


def usage() -> str:
    rows = "\n".join(f"  {name:<12} {summary}" for name, summary in COMMANDS.items())
    return (
        f"mbrl-bilevel {__version__}\n\nusage: mbrl-bilevel COMMAND [FLAGS]\n\n{rows}\n\n"
        "`mbrl-bilevel COMMAND --help` lists the flags of a command."
    )


def main() -> None:
    """Exit code 0; 2 for bad input (one sentence on stderr); 1 for a failure; 130 for Ctrl-C."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(__version__)
        return 0
    name = argv[0]
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"mbrl-bilevel: unknown command {name!r}; choose one of {known}", file=sys.stderr)
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # torch's threads spin while they wait for each other: for long, and a machine with other work
    # to do is thirty times slower on small networks; not at all, and an idle one loses a third.
    # Read when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
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
    try:
        outcome = module.run(command)
    except InputError as error:
        print(f"mbrl-bilevel {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        how = "; the same command with --resume continues it" if hasattr(command, "resume") else ""
        print(f"mbrl-bilevel {name}: interrupted{how}", file=sys.stderr)
        return 130
    if command.json:
        print(outcome.text, file=sys.stderr, flush=True)
        print(json.dumps(outcome.figures), flush=True)
    else:
        print(outcome.text, flush=True)
    return outcome.exit_code
