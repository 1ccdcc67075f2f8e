"""What makes a model of Walker2d-v5 better on steps that it has not seen.

train-agent --agent sac --env Walker2d-v5 --steps 16000 --seed 0 --out RUN_FOLDER
python docs/lab-notes/2026-11-27-walker2d-fits.py RUN_FOLDER
"""

import sys
import time
from dataclasses import replace

import torch
from safetensors.torch import load_file

from mbrl_bilevel.agents.refit import fit_again, in_blocks
from mbrl_bilevel.agents.settings import DHMBPOSettings
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings

OBS, ACT, MEMBERS = 17, 6, 2
NEW = 1_000  # steps after those that a fit has seen
STEPS = 1_200
CHANGES = (  # of the agent's defaults: rows of the members, dropout, weight decay
    ("bootstrap", 0.005, 1e-3),
    ("shared", 0.005, 1e-3),
    ("bootstrap", 0.02, 1e-3),
    ("shared", 0.02, 1e-3),
    ("shared", 0.05, 1e-3),
    ("bootstrap", 0.0, 1e-3),
    ("bootstrap", 0.005, 1e-2),
    ("bootstrap", 0.005, 1e-1),
)


def replay(run: str) -> Transitions:
    rows = load_file(f"{run}/checkpoint.safetensors")["replay/rows"]
    obs, act, reward, after, ends = rows.split((OBS, ACT, 1, OBS, 1), -1)
    return in_blocks(Batch(obs, act, reward[:, 0], after, ends[:, 0]))


def squared_error(model: DynamicsModel, transitions: Transitions) -> float:
    """Of each member, mean over members and standardised targets."""
    x, y = model.encode(transitions)
    return float((model.network(x).mean - y).square().mean())


def main(run: str) -> None:
    torch.set_num_threads(1)
    steps, usual = replay(run), DHMBPOSettings()
    print("steps,rows,dropout,weight_decay,held_out,new,processor_seconds")
    for seen in (8_000, len(steps) - NEW):
        for rows, dropout, decay in CHANGES:
            generator, began = torch.Generator().manual_seed(0), time.process_time()
            network = ModelSettings(
                members=MEMBERS,
                hidden=usual.model.hidden,
                noise="constant",
                layer_norm=True,
                dropout=dropout,
            )
            model = DynamicsModel(OBS, ACT, network, learn_reward=True, generator=generator)
            found = fit_again(
                model,
                steps[:seen],
                usual.objective,
                replace(usual.model, members=MEMBERS),
                replace(usual.refits, model_resampling=rows, model_weight_decay=decay),
                generator,
                STEPS,
            )
            new = squared_error(model, steps[seen : seen + NEW])
            seconds = time.process_time() - began
            errors = f"{found['held_out_mse']:.4f},{new:.4f}"
            print(f"{seen},{rows},{dropout},{decay},{errors},{seconds:.0f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
