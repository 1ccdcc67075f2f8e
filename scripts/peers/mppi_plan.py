"""A planning step of pytorch-mppi in an ensemble.

The library leaves the dynamics to its user. They are what ours computes and no more: one batched
product a layer for all members, standardised in and out, a bounded deviation, a sample.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from pytorch_mppi import MPPI
from torch import Tensor
from torch.nn.functional import silu, softplus

from mbrl_bilevel.scripts.peers.protocol import Spec, serve
from mbrl_bilevel.scripts.peers.sizes import ACT, OBS, Network


def prepare(spec: Spec) -> Callable[[], object]:
    torch.manual_seed(spec["seed"])
    network = Network(**spec["network"])
    planner = MPPI(
        _dynamics(network),
        _cost,
        OBS,
        0.25 * torch.eye(ACT),
        num_samples=spec["samples"],
        horizon=spec["horizon"],
        u_min=-torch.ones(ACT),
        u_max=torch.ones(ACT),
        rollout_samples=spec["particles"],
    )
    obs = torch.randn(OBS)

    def run() -> None:
        with torch.no_grad():
            for i in range(spec["iterations"]):
                planner.command(obs, shift_nominal_trajectory=i == 0)

    return run


def _dynamics(network: Network) -> Callable[[Tensor, Tensor], Tensor]:
    """Rows come particle by particle, and each particle has a member."""
    sizes, members = network.sizes, network.members
    weights = [torch.randn(members, i, j) * i**-0.5 for i, j in pairwise(sizes)]
    biases = [torch.zeros(members, 1, j) for j in sizes[1:]]
    mean, std = torch.zeros(OBS + ACT), torch.ones(OBS + ACT)
    shift, scale = torch.zeros(OBS), torch.ones(OBS)

    def step(obs: Tensor, act: Tensor) -> Tensor:
        x = ((torch.cat([obs, act], -1) - mean) / std).view(members, -1, OBS + ACT)
        for bias, weight in zip(biases[:-1], weights[:-1], strict=True):
            x = silu(torch.baddbmm(bias, x, weight))
        centre, log_std = torch.baddbmm(biases[-1], x, weights[-1]).chunk(2, -1)
        log_std = 2 - softplus(2 - log_std)
        log_std = -10 + softplus(log_std + 10)
        y = centre + log_std.exp() * torch.randn_like(centre)
        return obs + y.reshape(-1, OBS) * scale + shift

    return step


def _cost(obs: Tensor, act: Tensor) -> Tensor:
    return 0.1 * act.square().sum(-1) - obs[:, 8]


if __name__ == "__main__":
    serve(prepare, "pytorch-mppi", "torch")
