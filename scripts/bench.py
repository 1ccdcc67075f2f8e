"""`bench`: throughput with the machine's own limit beside it."""

import importlib
from typing import Any

import torch

from mbrl_bilevel.scripts.command import Outcome, resolve_device, say
from mbrl_bilevel.scripts.flags.bench import Config


def run(config: Config) -> Outcome:
    device = resolve_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    found: dict[str, Any] = {}
    for name in config.names:
        say(f"bench {name} ...")
        module = importlib.import_module(f"mbrl_bilevel.scripts.bench_{name}")
        found[name] = module.measure(config.rounds, device, config.seed)
    found["threads"] = torch.get_num_threads()
    found["device"] = str(device)
    return Outcome(found, "\n".join(_rows(name, found[name]) for name in config.names))


def _rows(name: str, figures: dict[str, Any]) -> str:
    unit = figures["unit"]
    lines = [f"{name}: {figures['ours']:.4g} {unit}"]
    if figures["limit"] is not None:
        share = 100 * figures["share_of_limit"]
        lines[0] += f", limit {figures['limit']:.4g}, share of limit {share:.0f} %"
    if figures["peer"] is not None:
        lines.append(
            f"  {figures['peer_name']}: {figures['peer']:.4g}; ours is {figures['ratio']:.2f} x"
        )
    lines += [f"  {k}: {v:.4g}" for k, v in figures["more"].items()]
    return "\n".join(lines)
