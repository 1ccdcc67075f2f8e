"""`bench`: throughput with the machine's own limit beside it."""

import importlib
from dataclasses import asdict
from typing import Any

import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.command import Outcome, resolve_device, say
from mbrl_bilevel.scripts.csv_table import write_csv
from mbrl_bilevel.scripts.flag_checks import make_folder
from mbrl_bilevel.scripts.flags.bench import ALL, Config
from mbrl_bilevel.scripts.measurement import Measurement
from mbrl_bilevel.scripts.peers.machine import cpu_name

FILE = "throughput-bench.csv"
COLUMNS = ("benchmark", "metric", "value", "unit", "cpu", "threads")


def run(config: Config) -> Outcome:
    if config.peers:
        from mbrl_bilevel.scripts import bench_peers  # imports every agent

        return bench_peers.run(config)
    if "rollout" in config.names:
        raise InputError("bench rollout: it compares with a peer; add --peers")
    device = resolve_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.out is not None:
        make_folder("--out", config.out, empty=True)
    measured: dict[str, Measurement] = {}
    machine = {"cpu": cpu_name(), "threads": str(torch.get_num_threads())}
    for name in config.names or ALL:
        say(f"bench {name} ...")
        module = importlib.import_module(f"mbrl_bilevel.scripts.bench_{name}")
        measured[name] = module.measure(config.rounds, device, config.seed)
        if config.out is not None:
            rows = [row | machine for name, one in measured.items() for row in one.rows(name)]
            write_csv(rows, config.out / FILE, COLUMNS)
    found: dict[str, Any] = {name: asdict(one) for name, one in measured.items()}
    found |= {"threads": torch.get_num_threads(), "device": str(device)}
    return Outcome(found, "\n".join(one.text(name) for name, one in measured.items()))
