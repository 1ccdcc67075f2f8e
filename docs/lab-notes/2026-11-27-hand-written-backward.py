"""What a backward written by hand would gain in a fit, and what a penalty costs in a rollout.

python docs/lab-notes/2026-11-27-hand-written-backward.py
"""

import statistics
import time
from itertools import pairwise

import numpy as np
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.envs.learned_vector_env import LearnedVectorEnv
from mbrl_bilevel.envs.tasks import get_task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.products import fast_products
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.trainer import Trainer

MEMBERS, IN, OUT, HIDDEN, BATCH, ROWS, STEPS = 5, 23, 17, (200, 200, 200), 256, 12_800, 50


def by_hand(x, y, generator):
    """NLL with soft bounds left out, gradients clipped per member, AdamW on one flat tensor."""
    sizes = [IN, *HIDDEN, 2 * OUT]
    shapes = [s for i, j in pairwise(sizes) for s in ((MEMBERS, i, j), (MEMBERS, 1, j))]
    counts = [torch.Size(s).numel() for s in shapes]
    flat, grad = torch.zeros(sum(counts)), torch.zeros(sum(counts))
    views = [v.view(s) for v, s in zip(flat.split(counts), shapes, strict=True)]
    grads = [v.view(s) for v, s in zip(grad.split(counts), shapes, strict=True)]
    for w in views[::2]:
        w.normal_(0, w.shape[1] ** -0.5, generator=generator)
    moments = [torch.zeros_like(flat) for _ in range(2)]
    step = torch.zeros(())
    silu_back = torch.ops.aten.silu_backward
    rows = torch.randint(ROWS, (MEMBERS, ROWS), generator=generator)

    def one(k):
        index = rows[:, k * BATCH : (k + 1) * BATCH]
        h, hs, zs = x[index], [], []
        target = y[index]
        for layer, (w, b) in enumerate(zip(views[::2], views[1::2], strict=True)):
            hs.append(h)
            z = torch.baddbmm(b, h, w)
            if layer < len(HIDDEN):
                zs.append(z)
                h = torch.nn.functional.silu(z)
        mean, log_std = z.chunk(2, -1)
        precision = torch.exp(-2 * log_std)
        d = mean - target
        g = torch.cat([d * precision, 1 - d.square() * precision], -1).div_(BATCH)
        for layer in reversed(range(len(sizes) - 1)):
            torch.bmm(hs[layer].mT, g, out=grads[2 * layer])
            torch.sum(g, 1, keepdim=True, out=grads[2 * layer + 1])
            if layer:
                g = silu_back(torch.bmm(g, views[2 * layer].mT), zs[layer - 1])
        norms = sum(v.flatten(1).square().sum(1) for v in grads).sqrt()
        factor = (10.0 / (norms + 1e-6)).clamp(max=1.0).view(-1, 1, 1)
        for v in grads:
            v.mul_(factor)
        torch._fused_adamw_(
            [flat],
            [grad],
            [moments[0]],
            [moments[1]],
            [],
            [step],
            lr=1e-3,
            beta1=0.9,
            beta2=0.999,
            weight_decay=1e-4,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
        step.add_(1)

    def run():
        for k in range(STEPS):
            one(k)

    return run


def rollouts(weight, generator):
    """Steps of 1,000 rows in 5 members of 4 x 200, with a penalty for the largest deviation."""
    model = DynamicsModel(17, 6, ModelSettings(members=5, hidden=(200,) * 4), generator=generator)
    env = LearnedVectorEnv(
        model, get_task("HalfCheetah-v5"), torch.randn(10_000, 17, generator=generator),
        num_envs=1_000, time_limit=STEPS, action_space=Box(-1, 1, (6,), np.float32), seed=0,
        uncertainty_penalty=weight,
    )  # fmt: skip
    actions = 2 * torch.rand(STEPS, 1_000, 6, generator=generator) - 1

    def run():
        env.reset_tensors()
        for action in actions:
            env.step_tensors(action)

    return run


def in_turn(calls):
    spent = {name: [] for name in calls}
    for round_ in range(8):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if round_:
                spent[name].append(1e3 * (time.perf_counter() - start) / STEPS)
    (first, a), (second, b) = spent.items()
    for name, ms in spent.items():
        print(f"{name}: {statistics.median(ms):.2f} ms a step")
    ratios = [y / x for x, y in zip(a, b, strict=True)]
    median, ends = statistics.median(ratios), f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"{second} / {first}: {median:.3f} ({ends})")


def main():
    torch.set_num_threads(1)
    fast_products()
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(ROWS, IN, generator=g), torch.randn(ROWS, OUT, generator=g)
    network = GaussianEnsemble(IN, OUT, members=MEMBERS, hidden=HIDDEN, generator=g)
    settings = FitSettings(batch_size=BATCH, resampling="bootstrap")
    trainer = Trainer(network, NLL(), Samples(x, y), Samples(x, y), g, settings)

    def ours():
        for _ in range(STEPS):
            trainer.train_step()

    in_turn({"fit loop": ours, "by hand": by_hand(x, y, g)})
    in_turn({"rollout": rollouts(0.0, g), "with a penalty": rollouts(1.0, g)})


if __name__ == "__main__":
    main()
