"""An epoch of mbrl-lib's ModelTrainer."""

from collections.abc import Callable

import numpy as np
import torch
from mbrl.models import ModelTrainer
from mbrl.types import TransitionBatch
from mbrl.util.replay_buffer import BootstrapIterator

from mbrl_bilevel.scripts.peers.mbrl_model import model
from mbrl_bilevel.scripts.peers.protocol import Spec, serve
from mbrl_bilevel.scripts.peers.sizes import ACT, OBS


def prepare(spec: Spec) -> Callable[[], object]:
    rows, generator = spec["rows"], torch.Generator().manual_seed(spec["seed"])
    x = torch.randn(rows, OBS + ACT, generator=generator).numpy()
    obs, act = x[:, :OBS], x[:, OBS:]
    change = torch.randn(rows, OBS, generator=generator).numpy()
    nothing = np.zeros(rows, dtype=np.float32)
    batch = TransitionBatch(obs, act, obs + change, nothing, nothing > 0, nothing > 0)
    data = BootstrapIterator(
        batch,
        spec["batch"],
        spec["network"]["members"],
        shuffle_each_epoch=True,
        rng=np.random.default_rng(spec["seed"]),
    )
    ensemble = model(spec["network"])
    ensemble.update_normalizer(batch)
    trainer = ModelTrainer(ensemble, optim_lr=1e-3)
    return lambda: trainer.train(data, num_epochs=1, evaluate=False, silent=True)


if __name__ == "__main__":
    serve(prepare, "mbrl", "torch")
