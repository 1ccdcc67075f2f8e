"""Steps of a learned environment, beside mbrl-lib's ModelEnv."""

from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.envs.learned_vector_env import LearnedVectorEnv
from mbrl_bilevel.envs.tasks import get_task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.scripts.peers.comparison import Comparison, precisions_here
from mbrl_bilevel.scripts.peers.sizes import ACT, OBS, Network
from mbrl_bilevel.scripts.timing import layer_products

# Rows a step and steps of a round: networks of the literature, and small ones.
WORK = ((Network(), 1_000, 20), (Network(layers=2, units=64), 1_000, 50))


def comparisons(seed: int) -> Iterator[Comparison]:
    """Every row of a step is moved by a member drawn at random; actions are drawn beforehand."""
    for network, rows, steps in WORK:
        for precision in precisions_here():
            yield Comparison(
                name="rollout",
                peer="mbrl_rollout",
                packages="mbrl",
                spec={"network": asdict(network), "rows": rows, "steps": steps, "seed": seed},
                ours=_rollout(network, rows, steps, seed),
                limit=_limit(network, rows, steps),
                precision=precision,
                per=f"step of {rows:,} rows, {network}",
                count=steps,
            )


def _rollout(network: Network, rows: int, steps: int, seed: int) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(seed)
    settings = ModelSettings(members=network.members, hidden=network.hidden)
    model = DynamicsModel(OBS, ACT, settings, generator=generator)
    env = LearnedVectorEnv(
        model,
        get_task("HalfCheetah-v5"),
        torch.randn(10_000, OBS, generator=generator),
        num_envs=rows,
        time_limit=steps,
        action_space=Box(-1, 1, (ACT,), np.float32),
        seed=seed,
    )
    actions = 2 * torch.rand(steps, rows, ACT, generator=generator) - 1

    def run() -> None:
        env.reset_tensors()
        for action in actions:
            env.step_tensors(action)

    return run


def _limit(network: Network, rows: int, steps: int) -> Callable[[], None]:
    each = rows // network.members
    products, _ = layer_products(
        network.members, each, network.sizes, torch.device("cpu"), backward=False
    )

    def run() -> None:
        for _ in range(steps):
            products()

    return run
