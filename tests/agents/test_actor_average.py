"""The average of an actor: its recursion, and that the actor is left alone."""

import torch

from mbrl_bilevel.agents.actor_average import ActorAverage
from mbrl_bilevel.agents.squashed_actor import SquashedActor

LOW, HIGH = torch.tensor([-1.0]), torch.tensor([1.0])


def actor(seed: int) -> SquashedActor:
    return SquashedActor(2, LOW, HIGH, (4,), torch.Generator().manual_seed(seed))


def flat(network: SquashedActor) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


def test_it_moves_a_share_of_the_way():
    source = actor(0)
    average, first = ActorAverage(source, 0.25), flat(source).clone()
    source.load_state_dict(actor(1).state_dict())
    second = flat(source).clone()
    average.follow()
    average.follow()
    torch.testing.assert_close(flat(average.actor), 0.75**2 * first + (1 - 0.75**2) * second)
    assert torch.equal(flat(source), second)
    assert not any(p.requires_grad for p in average.actor.parameters())


def test_at_a_rate_of_1_it_is_the_actor():
    source = actor(0)
    average = ActorAverage(source, 1.0)
    source.load_state_dict(actor(1).state_dict())
    average.follow()
    assert torch.equal(flat(average.actor), flat(source))


def test_it_goes_on_from_its_state():
    source = actor(0)
    average, again = ActorAverage(source, 0.25), ActorAverage(source, 0.25)
    source.load_state_dict(actor(1).state_dict())
    average.follow()
    again.load_state(average.state())
    assert torch.equal(flat(again.actor), flat(average.actor))
