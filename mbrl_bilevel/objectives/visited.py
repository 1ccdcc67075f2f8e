"""Left-out rows weighted by how often a policy comes near them in the model as it is."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.inference import for_inference
from mbrl_bilevel.models.sampling import draw
from mbrl_bilevel.nested_state import State, nest, part
from mbrl_bilevel.training.batches import Batches

Policy = Callable[[Float[Tensor, "*s o"]], Float[Tensor, "*s a"]]

REFRESH_EVERY = 10  # outer batches; a refresh costs about as much as one outer step
STARTS = 128  # of each member at a refresh
NEIGHBOURS = 5  # rows that share an imagined input; fewer leave more rows without any
UNIFORM = 0.02  # share of the weights that all rows have alike, so that none is without
LARGEST = 2**24  # distances in memory at once


class VisitedBatch(NamedTuple):
    """Rows of each member's outer data, and their weights, 1 in the mean over all of its rows."""

    x: Float[Tensor, "e b d"]
    y: Float[Tensor, "e b n"]
    weight: Float[Tensor, "e b"]


class VisitedBatches:
    """Batches of the `rows` [E, M] of `transitions`, weighted by where a policy goes (theory T12).

    At the first batch, and at every REFRESH_EVERY-th from there on, each member follows the policy
    open loop for `horizon` steps from STARTS of its own rows, and its rows get new weights.

    Args:
        policy: actions for observations, both in the environment's units.
        generator: decides batches, starts and the noise of the imagined steps.
    """

    def __init__(
        self,
        model: DynamicsModel,
        policy: Policy,
        transitions: Transitions,
        rows: Int[Tensor, "e m"],
        *,
        horizon: int,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self.model, self.policy, self.horizon, self.rows = model, policy, horizon, rows
        self.observation = model.cast(transitions.observation)
        self.x, self.y = model.encode(transitions)
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        self.imagination = torch.Generator(generator.device).manual_seed(seed)
        # Shared rows are shuffled once for all members; the comparison waits for the device, once.
        shared = bool((rows == rows[:1]).all())
        places = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
        self.batches = Batches(places, batch_size, generator, shared=shared)
        self.weight = torch.ones(rows.shape, device=rows.device, dtype=self.x.dtype)
        self.count = 0

    def __next__(self) -> VisitedBatch:
        if self.count % REFRESH_EVERY == 0:
            self.refresh()
        self.count += 1
        places = next(self.batches)
        rows = self.rows.gather(1, places)
        return VisitedBatch(self.x[rows], self.y[rows], self.weight.gather(1, places))

    @torch.no_grad()
    def refresh(self) -> None:
        """New weights, by the model as it is."""
        members, count = self.rows.shape
        device, generator = self.rows.device, self.imagination
        places = torch.randint(count, (members, STARTS), generator=generator, device=device)
        start = self.observation[self.rows.gather(1, places)]
        seen = imagined_inputs(self.model, self.policy, start, self.horizon, generator)
        self.weight = visit_weights(self.x[self.rows], seen)

    def metrics(self) -> State:
        """`visited_rows`: the effective number of rows, 1 / sum_m v_m^2 of weights v that sum to 1,
        a mean over members."""
        share = self.weight / self.weight.sum(1, keepdim=True)
        return {"visited_rows": (1 / share.square().sum(1)).mean()}

    def state(self) -> State:
        own = {"weight": self.weight, "generator": self.imagination.get_state()}
        own["count"] = torch.tensor(self.count)
        return self.batches.state() | nest({"visited": own})

    def load_state(self, state: State) -> None:
        self.batches.load_state(state)
        own = part(state, "visited")
        self.weight = own["weight"].to(self.weight)
        self.imagination.set_state(own["generator"])
        self.count = int(own["count"])


@torch.no_grad()
def imagined_inputs(
    model: DynamicsModel,
    policy: Policy,
    start: Float[Tensor, "e s o"],
    horizon: int,
    generator: torch.Generator,
) -> Float[Tensor, "e v d"]:
    """Inputs of the model along every member's own sampled paths under the policy, v = horizon s.

    States and inputs are clamped as by `models.propagation`; starts are in own units.
    """
    network, size = for_inference(model.network), model.obs_dim
    obs, found = start, []
    lowest, highest = model.reachable(start, horizon)
    for _ in range(horizon):
        found.append(model.inputs(obs, model.cast(policy(obs))))
        y = model.widen(draw(network(found[-1]), generator))
        change = model.target_standardizer.restore(y)[..., :size]
        obs = (obs + change).clamp(lowest, highest)
    return torch.cat(found, 1)


def visit_weights(
    x: Float[Tensor, "e m d"],
    seen: Float[Tensor, "e v d"],
    *,
    neighbours: int = NEIGHBOURS,
    uniform: float = UNIFORM,
) -> Float[Tensor, "e m"]:
    """How often imagined inputs `seen` fall near each row x, 1 in the mean over a member's rows.

    Each input counts in equal parts for its nearest `neighbours` rows (Loog 2012, "Nearest
    neighbor-based importance weighting": the share of a row estimates the density of what is seen
    over that of the rows); `uniform` is the share of weights that are equal.
    """
    members, count, _ = x.shape
    nearest = min(neighbours, count)
    counts = torch.zeros_like(x[..., 0])
    for part_seen in seen.split(max(1, LARGEST // (members * count)), 1):
        rows = torch.cdist(part_seen, x).topk(nearest, largest=False).indices.flatten(1)
        counts.scatter_add_(1, rows, torch.ones_like(rows, dtype=counts.dtype))
    share = counts * (count / (nearest * seen.shape[1]))
    return uniform + (1 - uniform) * share
