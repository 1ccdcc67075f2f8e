"""A fit of a dynamics model to transitions, by any objective."""

from collections.abc import Sequence

import torch

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.loop import Callback
from mbrl_bilevel.training.objective import Objective, ObjectiveSettings
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.trainer import FitResult


def fit(
    model: DynamicsModel,
    objective: Objective | ObjectiveSettings,
    train: Transitions,
    held_out: Transitions,
    *,
    generator: torch.Generator,
    settings: FitSettings = FitSettings(),
    elites: int | None = None,
    warm_start: bool = False,
    run: RunFolder | None = None,
    checkpoint_seconds: float = 20.0,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Fits a model: standardisers, every member's best held-out parameters, and the elites.

    Held-out rows decide when to stop, which parameters each member keeps and which members are the
    elites; no gradient of the members sees them. Standardisers are fitted to `train` alone.

    Args:
        objective: or the settings of one, which is built once the standardisers are fitted.
        generator: on the model's device; decides everything random.
        elites: how many members act, the best by held-out error; default: all.
        warm_start: the model was fitted before, and the objective goes on from what it learned.
        run, checkpoint_seconds, callbacks: as of `fit_network`.

    Raises:
        InputError: constant targets, values that are not finite, empty parts, or settings of the
            objective that do not fit the model or the data.
        TrainingDiverged, Interrupted, OSError: as of `fit_network`.
    """
    device = model.elites.device
    train, held_out = train.to(device), held_out.to(device)
    model.fit_standardizers(train)
    model.network.recalibrate(1.0)
    if isinstance(objective, ObjectiveSettings):
        objective = objective.build(
            model, train, held_out, steps=settings.steps, generator=generator
        )
    if warm_start:
        objective.warm_start(model.network)
    result = fit_network(
        model.network,
        objective,
        Samples(*model.encode(train)),
        Samples(*model.encode(held_out)),
        generator=generator,
        settings=settings,
        names=model.informative_names,
        run=run,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
        callbacks=callbacks,
    )
    model.elites = torch.tensor(result.order[:elites], device=device)
    return result
