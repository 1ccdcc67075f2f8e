"""Where the model of a DHMBPO run on Walker2d-v5 is wrong, and whether longer fits help.

python docs/lab-notes/2026-11-27-walker2d-dhmbpo.py RUN_FOLDER
"""

import sys
import time

import torch
from safetensors.torch import load_file

from mbrl_bilevel.agents.refit import fit_again, in_blocks
from mbrl_bilevel.agents.settings import DHMBPOSettings
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.products import fast_products

OBS, ACT = 17, 6
NEW, SEEN = 1_000, 19_000  # the latest steps, which no fit has seen, and those before them
STEPS = 400, 1_600, 4_000


def replay(run):
    rows = load_file(f"{run}/checkpoint.safetensors")["replay/rows"]
    obs, act, reward, after, ends = rows.split((OBS, ACT, 1, OBS, 1), -1)
    return Batch(obs, act, reward[:, 0], after, ends[:, 0])


def squared_errors(model, transitions):
    """Of the members' mean, by target, standardised."""
    x, y = model.encode(transitions)
    return (model.network.select(model.elites)(x).mean.mean(0) - y).square().detach()


def main(run):
    torch.set_num_threads(1)
    fast_products()
    settings, data = DHMBPOSettings(), replay(run)
    print(
        "share of velocities at their bound:", (data.observation[:, 8:].abs() >= 10).float().mean(0)
    )
    steps = in_blocks(data)
    new, seen, rest = steps[-NEW:], steps[-NEW - SEEN : -NEW], steps[:-NEW]
    model = DynamicsModel.load(run)
    errors = squared_errors(model, new)
    for name, error in zip(model.informative_names, errors.mean(0).tolist(), strict=True):
        print(f"{name:20} {error:.3f}")
    by_row = errors.mean(1).sort(descending=True).values
    print("share of the worst 5 % of the rows:", by_row[: NEW // 20].sum() / by_row.sum())
    for count in STEPS:
        model, began = DynamicsModel.load(run), time.process_time()
        found = fit_again(model, rest, settings.objective, settings.model, settings.refits,
                          torch.Generator().manual_seed(1), count)  # fmt: skip
        errors = [squared_errors(model, part).mean().item() for part in (new, seen)]
        print(count, found["held_out_mse"], *errors, time.process_time() - began, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
