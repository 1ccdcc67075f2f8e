"""`visited` with the data, networks, steps, seeds and tests of `reproduce dynamics`.

    python docs/lab-notes/2026-11-27-visited-real-size.py OUT DATA SEED ...

DATA: the folder that `reproduce dynamics --data` filled. Writes OUT/visited-SEED.csv of each seed.
"""

import csv
import sys
from pathlib import Path

import torch

from mbrl_bilevel.data.dataset_folder import datasets_in
from mbrl_bilevel.objectives.settings import BilevelSettings
from mbrl_bilevel.scripts import train_model
from mbrl_bilevel.scripts.flags import train_model as flags
from mbrl_bilevel.scripts.reproduce_dynamics import STEPS, _test, collected
from mbrl_bilevel.training.settings import FitSettings

HIDDEN = (200, 200, 200)


def run(env, seed, out):
    data, test = collected(env)
    folder = out / f"{env}-visited-{seed}"
    trained = train_model.run(
        flags.Config(
            run=flags.RunFlags(out=folder, seed=seed),
            data=flags.DataFlags(dataset=data.id),
            model=flags.ModelFlags(hidden=HIDDEN),
            objective=BilevelSettings(outer_objective="visited", visited_by="medium"),
            fit=FitSettings(steps=STEPS),
        )
    ).results
    row = {"environment": env, "objective": "visited", "seed": seed}
    row |= {name: trained[name] for name in ("parameters", "steps", "seconds")}
    return row | _test(folder, test, "cpu")


def main(out, data, seeds):
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with datasets_in(data):
        for seed in seeds:
            rows = [run(env, seed, out) for env in ("Hopper-v5", "HalfCheetah-v5")]
            with (out / f"visited-{seed}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(seed) for seed in sys.argv[3:]])
