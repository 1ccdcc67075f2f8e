"""One step of a learned model by randomly drawn members, with or without gradients."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.sampling import deal, draw, take_rows
from mbrl_bilevel.protocols import Task


class ModelStep(NamedTuple):
    """Where a step leads: `alive` is 0 where the episode has terminated, else 1."""

    observation: Float[Tensor, "b o"]
    reward: Float[Tensor, "b"]
    alive: Float[Tensor, "b"]


def model_step(
    model: DynamicsModel,
    network: GaussianEnsemble,
    task: Task,
    obs: Float[Tensor, "b o"],
    act: Float[Tensor, "b a"],
    generator: torch.Generator,
) -> ModelStep:
    """Every row is moved by one member of `network`, drawn anew (TS1, Chua et al. 2018).

    Rows are dealt in equal shares, so that each is computed once. Gradients flow through mean,
    noise and reward; the observation is not clamped to the range of the data, which would cut them.
    Whether a state terminates is a decision of the task, without a gradient.
    """
    rows, place = deal(len(obs), network.members, generator, obs.device)
    # One member a row, not the mean of all: the ensemble's disagreement is part of the noise.
    y = draw(network(take_rows(model.inputs(obs, act), rows)), generator)
    y = take_rows(model.target_standardizer.restore(model.widen(y)).flatten(0, 1), place)
    after = obs + y[:, : model.obs_dim]
    reward = y[:, model.obs_dim] if task.reward is None else task.reward(obs, act, after)
    with torch.no_grad():
        alive = 1.0 - task.terminated(after).to(obs.dtype)
    return ModelStep(after, reward, alive)
