"""What averages of DHMBPO's actor earn: kept every 100 steps of a run, played afterwards.

python 2026-11-26-hopper-averages.py train OUT      the run, and its actors in OUT/actors
python 2026-11-26-hopper-averages.py play OUT CSV   10 episodes of each at every 1,000 steps
"""

import csv
import sys
from pathlib import Path

import gymnasium
import numpy as np

from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.dhmbpo import DHMBPO
from mbrl_bilevel.scripts.main import run

EVERY, EPISODES = 100, 10
RATES = {"actor": 1.0, "1e-2": 1e-2, "3e-3": 3e-3, "1e-3": 1e-3, "3e-4": 3e-4}  # of an update


def train(out: Path) -> None:
    actors, step = out / "actors", DHMBPO.train_step
    actors.mkdir(parents=True)

    def and_keep(agent: DHMBPO) -> None:
        step(agent)
        if agent.step % EVERY == 0 and agent.step > agent.settings.start_steps:
            np.savez(actors / f"{agent.step:06d}.npz", **agent.policy().weights)

    DHMBPO.train_step = and_keep
    run(["train-agent", "--agent", "dhmbpo", "--env", "Hopper-v5", "--seed", "2",
         "--averaging-rate", "1", "--out", str(out / "run")])  # fmt: skip


def play(out: Path, table: Path) -> None:
    averages: dict[str, dict[str, np.ndarray]] = {}
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["real_steps", "average", "return", "lowest"])
        for path in sorted((out / "actors").glob("*.npz")):
            now = dict(np.load(path))
            for name, rate in RATES.items():
                share = 1 - (1 - rate) ** EVERY
                old = averages.get(name, now)
                averages[name] = {k: (1 - share) * old[k] + share * v for k, v in now.items()}
            if int(path.stem) % 1_000 == 0:
                for name, weights in averages.items():
                    returns = episodes(weights)
                    cells = [f"{np.mean(returns):.1f}", f"{min(returns):.1f}"]
                    rows.writerow([int(path.stem), name, *cells])
                    file.flush()


def episodes(weights: dict[str, np.ndarray]) -> list[float]:
    policy = BehaviourPolicy(weights, {"activation": "silu"})
    environments = [gymnasium.make("Hopper-v5") for _ in range(EPISODES)]
    observations = [e.reset(seed=1_000 + i)[0] for i, e in enumerate(environments)]
    returns, going = [0.0] * EPISODES, list(range(EPISODES))
    while going:
        actions = policy(np.asarray([observations[i] for i in going], np.float32))
        for i, action in zip(tuple(going), actions, strict=True):
            observations[i], reward, ended, cut, _ = environments[i].step(action)
            returns[i] += float(reward)
            if ended or cut:
                going.remove(i)
    return returns


if __name__ == "__main__":
    what, out, *rest = sys.argv[1:]
    train(Path(out)) if what == "train" else play(Path(out), Path(rest[0]))
