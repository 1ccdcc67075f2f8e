"""Updates replayed from a graph against updates made kernel by kernel."""

import pytest
import torch

from mbrl_bilevel.agents.cuda_graph import WARM_UP, CudaGraphUpdate
from mbrl_bilevel.agents.policy_updates import SoftActorCritic
from mbrl_bilevel.agents.setting_groups import PolicySettings
from mbrl_bilevel.data.replay import Batch, Replay

OBS, ACT, BATCH = 5, 2, 64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_replayed_updates_are_those_made_kernel_by_kernel():
    """Imitation, then updates of both kinds; a slower rate, then anew: the same to rounding."""
    plain, captured = learner(), learner()
    update = CudaGraphUpdate(captured)
    replay, draws = data(), torch.Generator("cuda").manual_seed(2)
    for i in range(8 * WARM_UP):
        batch, near = replay.sample(BATCH, draws), replay.sample(BATCH // 2, draws)
        kind = {"imitate": True} if i < 2 * WARM_UP else {"behaviour": near if i % 2 else None}
        ours, theirs = update(batch, **kind), plain.update(batch, **kind)
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)
        if i == 6 * WARM_UP:
            assert len(update.graphs) == 3
            for sac in (plain, captured):
                sac.scale_learning_rate(0.1)
            update.forget()
    for (name, ours), theirs in zip(captured.state().items(), plain.state().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5, msg=name)


def learner():
    one = torch.ones(ACT, device="cuda")
    small, generator = PolicySettings(policy_hidden=32), torch.Generator("cuda").manual_seed(0)
    return SoftActorCritic(small, OBS, -one, one, generator)


def data():
    generator = torch.Generator("cuda").manual_seed(1)
    replay = Replay(500, OBS, ACT, "cuda")
    columns = [
        torch.randn(500, size, generator=generator, device="cuda") for size in (OBS, ACT, OBS)
    ]
    reward = torch.randn(500, generator=generator, device="cuda")
    replay.add(Batch(columns[0], columns[1].tanh(), reward, columns[2], torch.zeros_like(reward)))
    return replay
