"""The average of an actor over its updates."""

import copy

import torch

from mbrl_bilevel.agents.policy_updates import polyak_update
from mbrl_bilevel.agents.squashed_actor import SquashedActor
from mbrl_bilevel.nested_state import State


class ActorAverage:
    """Exponential moving average of an actor's parameters (Polyak and Juditsky 1992).

    A policy that learns all the time is now and then caught in the middle of a mistake: its average
    is what is evaluated and saved, while the actor itself acts and learns.

    Args:
        actor: whose average it is.
        rate: share of the way to the actor's parameters in each update; 1 is the actor itself.
    """

    def __init__(self, actor: SquashedActor, rate: float) -> None:
        self.source, self.rate = actor, rate
        self.actor = copy.deepcopy(actor).requires_grad_(False)

    @torch.no_grad()
    def follow(self) -> None:
        """Moves to where the actor is now by a share `rate` of the way."""
        polyak_update(self.actor, self.source, self.rate)

    def state(self) -> State:
        return self.actor.state_dict()

    def load_state(self, state: State) -> None:
        self.actor.load_state_dict(state)
