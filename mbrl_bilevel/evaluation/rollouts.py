"""A model's own futures over recorded actions: the one place that asks it for them."""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.evaluation.windows import Windows
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.protocols import TrajectoryModel


def mean_paths(
    model: DynamicsModel, windows: Windows, generator: torch.Generator
) -> Float[Tensor, "e s k o"]:
    """Observations after 1 ... k steps, every elite following its own mean."""
    return _observations(Propagation(model, "mean"), windows, generator)


def sampled_paths(
    model: DynamicsModel, windows: Windows, generator: torch.Generator, per_elite: int
) -> Float[Tensor, "p s k o"]:
    """Sampled observations after 1 ... k steps, `per_elite` particles of every elite.

    A particle stays with its member to the end (TS-infinity, Chua et al. 2018, section 5).
    """
    particles = per_elite * len(model.elites)
    return _observations(Propagation(model, "ts_inf", particles=particles), windows, generator)


def _observations(
    model: TrajectoryModel, windows: Windows, generator: torch.Generator
) -> Float[Tensor, "p s k o"]:
    futures = model.trajectories(windows.start, windows.actions.unsqueeze(1), generator)
    return futures.observations[:, :, 0, 1:]
