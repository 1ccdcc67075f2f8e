"""Training an ensemble by likelihood, beside mbrl-lib's ModelTrainer."""

from collections.abc import Iterator
from dataclasses import asdict

import torch

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.scripts.peers.comparison import Comparison, precisions_here
from mbrl_bilevel.scripts.peers.sizes import ACT, OBS, Network
from mbrl_bilevel.scripts.timing import layer_products
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.trainer import Trainer

BATCH, STEPS = 256, 50  # of a round, which is an epoch of the data
NETWORK = Network(layers=3)


def comparisons(seed: int) -> Iterator[Comparison]:
    """Gradient steps of an ensemble, each member on its own bootstrap sample of the rows."""
    generator = torch.Generator().manual_seed(seed)
    rows = STEPS * BATCH
    data = Samples(
        torch.randn(rows, OBS + ACT, generator=generator),
        torch.randn(rows, OBS, generator=generator),
    )
    network = GaussianEnsemble(
        OBS + ACT, OBS, members=NETWORK.members, hidden=NETWORK.hidden, generator=generator
    )
    settings = FitSettings(batch_size=BATCH, resampling="bootstrap")
    trainer = Trainer(network, NLL(), data, data, generator, settings)
    products, _ = layer_products(
        NETWORK.members, BATCH, NETWORK.sizes, torch.device("cpu"), backward=True
    )

    def ours() -> None:
        for _ in range(STEPS):
            trainer.train_step()

    def limit() -> None:
        for _ in range(STEPS):
            products()

    for precision in precisions_here():
        yield Comparison(
            name="fit",
            peer="mbrl_fit",
            packages="mbrl",
            spec={"network": asdict(NETWORK), "rows": rows, "batch": BATCH, "seed": seed},
            ours=ours,
            limit=limit,
            precision=precision,
            per=f"gradient step, {NETWORK}, {BATCH} rows each",
            count=STEPS,
        )
