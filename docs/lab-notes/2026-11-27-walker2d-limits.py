"""How far imagined velocities of a DHMBPO run on Walker2d-v5 go beyond what the environment shows.

python docs/lab-notes/2026-11-27-walker2d-limits.py RUN_FOLDER
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from mbrl_bilevel.agents.build import make_agent
from mbrl_bilevel.agents.settings import DHMBPOSettings

SHOWN = 1, 2, 5, 10, 20
VELOCITIES = slice(8, 17)


@torch.no_grad()
def main(run):
    torch.set_num_threads(1)
    usual = DHMBPOSettings()
    settings = replace(
        usual,
        model=replace(usual.model, dropout=0.02),
        refits=replace(usual.refits, model_resampling="shared"),
    )
    agent = make_agent(settings, "Walker2d-v5")
    agent.load(Path(run))
    updates, real = agent.updates, agent.replay.in_order().observation[:, VELOCITIES]
    print("real states with a velocity at 10:", (real.abs() >= 10).any(1).float().mean().item())
    obs = agent.replay.sample(2_000, updates.generator).observation
    alive = torch.ones(len(obs), dtype=torch.bool)
    for t in range(1, max(SHOWN) + 1):
        unit, _ = updates.actor.sample(updates.standardizer.standardize(obs), updates.generator)
        step = updates._step(obs, unit)
        alive &= step.alive > 0
        obs = torch.where(alive[:, None], step.observation, obs)
        if t in SHOWN:
            speeds = obs[alive][:, VELOCITIES].abs()
            beyond = (speeds > 10.2).any(1).float().mean().item()
            fastest = torch.quantile(speeds.amax(1), 0.99).item()
            print(f"step {t}: {beyond:.3f} of the states beyond 10.2, fastest 1 % at {fastest:.1f}")


if __name__ == "__main__":
    main(sys.argv[1])
