"""`bench --peers`: our speed beside other libraries' at the same work."""

import importlib
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.command import Outcome, say
from mbrl_bilevel.scripts.csv_table import write_csv
from mbrl_bilevel.scripts.flag_checks import make_folder
from mbrl_bilevel.scripts.flags.bench import COMPARED, Config
from mbrl_bilevel.scripts.peers.comparison import COLUMNS, Comparison, Row, compare, table
from mbrl_bilevel.scripts.peers.environment import peers_python
from mbrl_bilevel.scripts.peers.machine import cpu_name, instruction_sets
from mbrl_bilevel.scripts.peers.protocol import Peer

FILE = "throughput-peers.csv"


def run(config: Config) -> Outcome:
    """Every comparison in turn, on the CPU and by one thread unless told otherwise.

    Raises:
        InputError: a benchmark that has no peer, a GPU, a folder that holds something, or no
            environment for the peers.
    """
    names = _checked(config)
    if config.out is not None:
        make_folder("--out", config.out, empty=True)
    say("preparing the peers' environment ...")
    python = peers_python()
    threads = config.threads or 1
    torch.set_num_threads(threads)
    versions: dict[str, str] = {"torch": version("torch")}
    rows = []
    for name in names:
        module = importlib.import_module(f"mbrl_bilevel.scripts.peers.{name}")
        with closing(module.comparisons(config.seed)) as works:
            for work in works:
                say(f"bench {work.name}: {work.per}, beside {work.packages} ...")
                rows.append(_row(work, python, threads, config.rounds, versions))
                if config.out is not None:
                    write_csv([row.cells() for row in rows], config.out / FILE, COLUMNS)
    machine = {
        "cpu": cpu_name(),
        "instruction_sets": list(instruction_sets()),
        "threads": threads,
        "rounds": config.rounds,
        "versions": versions,
    }
    found = {"peers": [asdict(row) for row in rows], "machine": machine}
    return Outcome(found, table(rows, _machine_line(threads, config.rounds, versions)))


def _checked(config: Config) -> tuple[str, ...]:
    without = [name for name in config.names if name not in COMPARED]
    if without:
        raise InputError(
            f"bench {without[0]} --peers: it has no peer; choose from {', '.join(COMPARED)}"
        )
    if config.device == "cuda":
        raise InputError("--device cuda --peers: peers are timed on the CPU; use --device cpu")
    return config.names or COMPARED


def _row(
    work: Comparison, python: Path, threads: int, rounds: int, versions: dict[str, str]
) -> Row:
    command = [str(python), "-m", f"mbrl_bilevel.scripts.peers.{work.peer}"]
    with Peer(command, {**work.spec, "threads": threads}) as peer:
        versions |= {k: v for k, v in peer.versions.items() if k != "torch"}
        if peer.versions.get("torch", versions["torch"]) != versions["torch"]:
            versions["torch of the peers"] = peer.versions["torch"]
        return compare(work, peer.run, peer.versions[work.packages], rounds)


def _machine_line(threads: int, rounds: int, versions: dict[str, str]) -> str:
    sets = " ".join(instruction_sets())
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"{cpu_name()} ({sets}); threads {threads}; rounds {rounds}; {packages}"
