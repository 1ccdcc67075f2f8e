"""Gradient updates a second of soft actor-critic, beside Stable-Baselines3's and bare products."""

from collections.abc import Callable
from statistics import median

import torch

from mbrl_bilevel.agents.cuda_graph import CudaGraphUpdate
from mbrl_bilevel.agents.policy_updates import SoftActorCritic
from mbrl_bilevel.agents.setting_groups import PolicySettings
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.products import fast_products, plain_products
from mbrl_bilevel.scripts.measurement import Measurement
from mbrl_bilevel.scripts.timing import layer_products, median_ratio, take_turns

OBS, ACT, HIDDEN, BATCH = 17, 6, 256, 256  # HalfCheetah's sizes, everybody's networks
ROWS, UPDATES = 10_000, 50  # of the replay, and of a call


def measure(rounds: int, device: torch.device, seed: int) -> Measurement:
    """Updates per second: batch, critics, actor, temperature and targets.

    Each runs as it does for its users: ours after `fast_products`, the peer by torch's defaults.
    """
    generator = torch.Generator(device).manual_seed(seed)
    data = transitions(generator)
    candidates = {
        "ours": _after(fast_products, updates(data, generator)),
        "limit": _after(fast_products, products_of_updates(device)),
    }
    peer = stable_baselines3(data, device, seed)
    if peer is not None:
        candidates["peer"] = _after(plain_products, peer)
    seconds = take_turns(candidates, rounds)
    rate = {name: UPDATES / median(s) for name, s in seconds.items()}
    return Measurement(
        ours=rate["ours"],
        peer=rate.get("peer"),
        peer_name="Stable-Baselines3's SAC, same batch and networks",
        ratio=median_ratio(seconds["peer"], seconds["ours"]) if peer is not None else None,
        limit=rate["limit"],
        share_of_limit=median_ratio(seconds["limit"], seconds["ours"]),
        unit="updates/s",
        more={"milliseconds per update": 1e3 / rate["ours"]},
    )


def _after(setting: Callable[[], None], call: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        setting()
        call()

    return run


def transitions(generator: torch.Generator) -> Batch:
    """Random transitions of HalfCheetah's sizes, on the generator's device."""
    device = generator.device
    return Batch(
        torch.randn(ROWS, OBS, generator=generator, device=device),
        2 * torch.rand(ROWS, ACT, generator=generator, device=device) - 1,
        torch.randn(ROWS, generator=generator, device=device),
        torch.randn(ROWS, OBS, generator=generator, device=device),
        torch.zeros(ROWS, device=device),
    )


def updates(data: Batch, generator: torch.Generator) -> Callable[[], None]:
    """UPDATES of ours, a call."""
    replay = Replay(ROWS, OBS, ACT, generator.device)
    replay.add(data)
    one = torch.ones(ACT, device=generator.device)
    sac = SoftActorCritic(PolicySettings(policy_hidden=HIDDEN), OBS, -one, one, generator)
    update = CudaGraphUpdate(sac) if one.is_cuda else sac.update

    def run() -> None:
        for _ in range(UPDATES):
            update(replay.sample(BATCH, generator))

    return run


def products_of_updates(device: torch.device) -> Callable[[], None]:
    """The matrix products of UPDATES, nothing around them."""
    critic, actor = [OBS + ACT, HIDDEN, HIDDEN, 1], [OBS, HIDDEN, HIDDEN, 2 * ACT]
    passes = (
        (2, critic, True),  # the critics' loss
        (2, critic, False),  # the targets
        (1, actor, False),  # next actions
        (1, actor, True),  # the actor's loss ...
        (2, critic, False),  # ... through the critics
        (2, critic[::-1], False),  # ... and back to the actions
    )
    products = [
        layer_products(members, BATCH, sizes, device, backward=backward)[0]
        for members, sizes, backward in passes
    ]

    def run() -> None:
        for _ in range(UPDATES):
            for multiply in products:
                multiply()

    return run


def stable_baselines3(data: Batch, device: torch.device, seed: int) -> Callable[[], None] | None:
    """UPDATES of the library's SAC, a call; None where it is not installed."""
    try:
        from stable_baselines3 import SAC as PeerSAC
        from stable_baselines3.common.logger import Logger
    except ImportError:
        return None
    peer = PeerSAC(
        "MlpPolicy",
        "HalfCheetah-v5",
        buffer_size=ROWS,
        batch_size=BATCH,
        seed=seed % 2**32,
        device=device,
    )
    peer.set_logger(Logger(None, []))
    buffer = peer.replay_buffer
    assert buffer is not None
    columns = (buffer.observations, buffer.actions, buffer.rewards, buffer.next_observations)
    for column, rows in zip(columns, data[:4], strict=True):
        column[:] = rows.cpu().numpy().reshape(column.shape)
    buffer.full = True

    def run() -> None:
        peer.train(gradient_steps=UPDATES, batch_size=BATCH)

    return run
