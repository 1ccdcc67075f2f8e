"""Steps of mbrl-lib's ModelEnv, each row by a member drawn at random."""

from collections.abc import Callable

import torch

from mbrl_bilevel.scripts.peers.mbrl_env import model_env
from mbrl_bilevel.scripts.peers.protocol import Spec, serve
from mbrl_bilevel.scripts.peers.sizes import ACT, OBS


def prepare(spec: Spec) -> Callable[[], object]:
    env, rows, steps = model_env(spec, "random_model"), spec["rows"], spec["steps"]
    generator = torch.Generator().manual_seed(spec["seed"])
    starts = torch.randn(10_000, OBS, generator=generator)
    actions = 2 * torch.rand(steps, rows, ACT, generator=generator) - 1

    def run() -> None:
        chosen = starts[torch.randint(len(starts), (rows,), generator=generator)]
        state = env.reset(chosen.numpy(), return_as_np=False)
        for action in actions:
            *_, state = env.step(action, state, sample=True)

    return run


if __name__ == "__main__":
    serve(prepare, "mbrl", "torch")
