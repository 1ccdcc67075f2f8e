"""Where the model of a DHMBPO run on HalfCheetah-v5 is wrong, and whether longer fits help.

python docs/lab-notes/2026-11-27-halfcheetah-fits.py RUN_FOLDER
"""

import sys
import time
from dataclasses import replace

import torch
from safetensors.torch import load_file

from mbrl_bilevel.agents.refit import fit_again, in_blocks
from mbrl_bilevel.agents.settings import DHMBPOSettings
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.models.dynamics import DynamicsModel

OBS, ACT = 17, 6


def replay(run):
    rows = load_file(f"{run}/checkpoint.safetensors")["replay/rows"]
    obs, act, reward, after, ends = rows.split((OBS, ACT, 1, OBS, 1), -1)
    return Batch(obs, act, reward[:, 0], after, ends[:, 0])


def se(model, tr):
    x, y = model.encode(tr)
    return (model.network.select(model.elites)(x).mean.mean(0) - y).square().detach()


def main(run):
    torch.set_num_threads(1)
    s, data = DHMBPOSettings(), replay(run)
    steps = in_blocks(data)
    n = len(steps)
    new, seen, rest = steps[-1000:], steps[-6000:-1000], steps[:-1000]
    m = DynamicsModel.load(run)
    e = se(m, new)
    print([(k, round(v, 3)) for k, v in zip(m.informative_names, e.mean(0).tolist(), strict=True)])
    print("max|obs|", data.observation.abs().amax(0).tolist())
    for low in range(0, n - 1000, 4000):
        print(low, "mse", se(m, steps[low : low + 4000]).mean().item())
    r = e.mean(1).sort(descending=True).values
    print("worst 5% share", (r[:50].sum() / r.sum()).item(), "mean", e.mean().item())
    base = replace(s.refits, model_resampling="shared")
    wide = replace(base, model_batch_size=2048)
    for name, st, rf in (
        ("400", 400, base),
        ("1600", 1600, base),
        ("400 of 2,048", 400, wide),
        ("4000", 4000, base),
    ):
        m, t = DynamicsModel.load(run), time.process_time()
        f = fit_again(m, rest, s.objective, s.model, rf, torch.Generator().manual_seed(1), st)
        print(
            name,
            "held",
            round(f["held_out_mse"], 4),
            "new",
            round(se(m, new).mean().item(), 4),
            "seen",
            round(se(m, seen).mean().item(), 4),
            round(time.process_time() - t),
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1])
