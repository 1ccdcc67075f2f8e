"""Gradient steps a second of the fit loop, beside bare matrix products of the same shapes."""

from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.scripts.measurement import Measurement
from mbrl_bilevel.scripts.timing import layer_products, median_ratio, take_turns
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.trainer import Trainer

MEMBERS, BATCH, HIDDEN, INPUTS, OUTPUTS = 5, 256, (200, 200, 200), 23, 17  # HalfCheetah's sizes
STEPS = 50  # a call


def measure(rounds: int, device: torch.device, seed: int) -> Measurement:
    """Operations per second of whole training steps (batch, loss, gradients, clipping, Adam)."""
    generator = torch.Generator(device).manual_seed(seed)
    data = Samples(
        torch.randn(20_000, INPUTS, generator=generator, device=device),
        torch.randn(20_000, OUTPUTS, generator=generator, device=device),
    )
    sizes = [INPUTS, *HIDDEN, 2 * OUTPUTS]
    products, operations = layer_products(MEMBERS, BATCH, sizes, device, backward=True)

    def limit() -> None:
        for _ in range(STEPS):
            products()

    candidates = {"ours": _ours(data, generator), "peer": _peer(data, device), "limit": limit}
    seconds = take_turns(candidates, rounds)
    rate = {name: STEPS * operations / median(s) / 1e9 for name, s in seconds.items()}
    return Measurement(
        ours=rate["ours"],
        peer=rate["peer"],
        peer_name="one nn.Sequential a member, torch's default Adam",
        ratio=median_ratio(seconds["peer"], seconds["ours"]),
        limit=rate["limit"],
        share_of_limit=median_ratio(seconds["limit"], seconds["ours"]),
        unit="Gflop/s",
        more={
            "milliseconds per step": 1e3 * median(seconds["ours"]) / STEPS,
            "million operations per step": operations / 1e6,
        },
    )


def _ours(data: Samples, generator: torch.Generator) -> Callable[[], None]:
    with torch.device(generator.device):
        network = GaussianEnsemble(
            INPUTS, OUTPUTS, members=MEMBERS, hidden=HIDDEN, generator=generator
        )
    loop = Trainer(network, NLL(), data, data, generator, FitSettings(batch_size=BATCH))

    def run() -> None:
        for _ in range(STEPS):
            loop.train_step()

    return run


def _peer(data: Samples, device: torch.device) -> Callable[[], None]:
    """The obvious implementation: a Python loop over members."""
    members = []
    for _ in range(MEMBERS):
        layers: list[nn.Module] = []
        for i, j in zip([INPUTS, *HIDDEN[:-1]], HIDDEN, strict=True):
            layers += [nn.Linear(i, j), nn.SiLU()]
        members.append(nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 2 * OUTPUTS)).to(device))
    optimizers = [torch.optim.Adam(member.parameters()) for member in members]

    def run() -> None:
        for _ in range(STEPS):
            rows = torch.randint(len(data.x), (BATCH,), device=device)
            for member, optimizer in zip(members, optimizers, strict=True):
                mean, log_std = member(data.x[rows]).chunk(2, -1)
                loss = nn.functional.gaussian_nll_loss(mean, data.y[rows], (2 * log_std).exp())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return run
