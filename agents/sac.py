"""Soft actor-critic (Haarnoja et al. 2018b), the policy learner of every Dyna agent.

One update, for a batch of transitions (s, a, r, s', d), d = 1 where the episode terminated:

    y         = r + gamma (1 - d) (min_i Q'_i(s', a') - alpha log pi(a' | s')),   a' ~ pi(. | s')
    J(Q)      = sum_i mean (Q_i(s, a) - y)^2 / 2
    J(pi)     = mean (alpha log pi(b | s) - min_i Q_i(s, b)),                     b ~ pi(. | s)
    J(alpha)  = -log alpha mean (log pi(b | s) + target entropy)
    Q'       <- Q' + tau (Q - Q')

What is evaluated and kept may be the actor's average over its updates (Polyak and Juditsky 1992):
a policy that learns all the time is now and then caught in the middle of a mistake.

Both critics, their targets and all their gradients are one batched matrix product a layer.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.agents.actor import Actor, normalised_relu, two_layers
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.networks import EnsembleMLP


class SAC:
    """Actor, twin critics, their targets and the temperature, with the one update that moves them.

    Args:
        low, high: bounds of the actions, on the device that trains.
        generator: on the same device; decides the start, and every action that is sampled.
        target_entropy: of the unit action; default -a.
        temperature: alpha to begin with.
        actor_learning_rate: default `learning_rate`; a slower actor leaves critics time to learn
            what its new actions are worth.
        averaging_rate: share of the actor in `average` at every update; 1 makes them the same.
        layer_norm: in the critics, before every ReLU: they say little new about states unlike those
            they learned from, and so cannot talk each other up there (Ball et al. 2023, RLPD).
        soft_values: whether values count the entropy of later actions, as above. Below a negative
            target entropy it is a price on every step to come; without it y is reward alone (Ball
            et al. 2023, "entropy backups").
        value_weight: of values, brought to unit size, beside staying near data (alpha of Fujimoto
            and Gu 2021).

    Raises:
        InputError: bounds that are not finite, or a discount, rate, temperature or width out of
            range.
    """

    def __init__(
        self,
        obs_dim: int,
        low: Float[Tensor, "a"],
        high: Float[Tensor, "a"],
        generator: torch.Generator,
        *,
        hidden: int = 256,
        discount: float = 0.99,
        learning_rate: float = 3e-4,
        actor_learning_rate: float | None = None,
        averaging_rate: float = 1.0,
        target_rate: float = 0.005,
        target_entropy: float | None = None,
        temperature: float = 1.0,
        layer_norm: bool = False,
        soft_values: bool = True,
        value_weight: float = 2.5,
    ) -> None:
        slow = learning_rate if actor_learning_rate is None else actor_learning_rate
        _check(low, high, hidden, discount, learning_rate, target_rate, temperature)
        if not 0 < slow < math.inf:
            raise InputError(f"an actor's learning rate of {slow}: choose a number above 0")
        if not 0 < averaging_rate <= 1:
            raise InputError(f"an averaging rate of {averaging_rate}: choose one above 0, up to 1")
        self.generator, self.discount, self.target_rate = generator, discount, target_rate
        self.averaging_rate, self.soft_values = averaging_rate, soft_values
        self.value_weight = value_weight
        self.target_entropy = -float(len(low)) if target_entropy is None else target_entropy
        with torch.device(low.device):
            self.actor = Actor(obs_dim, low, high, hidden, generator)
            activation = normalised_relu if layer_norm else torch.relu_
            sizes = 2, obs_dim + len(low), hidden, 1
            self.critic = two_layers(*sizes, generator, activation)
            self.target = two_layers(*sizes, generator, activation)
            self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.target.load_state_dict(self.critic.state_dict())
        self.target.requires_grad_(False)
        self.average = deepcopy(self.actor).requires_grad_(False)
        groups: list[dict[str, Any]] = [
            {"params": list(self.critic.parameters())},
            {"params": list(self.actor.parameters()), "lr": slow},
            {"params": [self.log_temperature]},
        ]
        self.learning_rate = learning_rate
        self.optimizer = torch.optim.Adam(
            groups, lr=learning_rate, fused=True, capturable=low.is_cuda
        )

    def value(
        self, critic: EnsembleMLP, obs: Float[Tensor, "b o"], act: Float[Tensor, "b a"]
    ) -> Float[Tensor, "2 b"]:
        """Q of both critics; they are shown unit actions."""
        unit = (act - self.actor.middle) / self.actor.half_width
        return critic(torch.cat([obs, unit], -1)).squeeze(-1)

    def update(
        self, batch: Batch, *, imitate: bool = False, behaviour: Batch | None = None
    ) -> dict[str, Tensor]:
        """One gradient step of everything; metrics stay on the device.

        To `imitate` moves the actor to the batch's own actions, J(pi) = -mean log pi(a | s), leaves
        the temperature as it is, and so teaches the critics what that behaviour is worth.
        `behaviour` is data that the policy is to stay near: J(pi) becomes
        value_weight J(pi) / mean |Q| - mean log pi(a | s), after Fujimoto and Gu (2021), whose
        policies have no density and go by the squared distance: of the mean of a squashed Gaussian
        that would be least at actions too small.
        """
        temperature = self.log_temperature.detach().exp()
        with torch.no_grad():
            next_act, next_log_prob = self.actor.sample(batch.next_observation, self.generator)
            ahead = self.value(self.target, batch.next_observation, next_act).amin(0)
            if self.soft_values:
                ahead = ahead - temperature * next_log_prob
            y = batch.reward + self.discount * (1 - batch.terminated) * ahead
        q = self.value(self.critic, batch.observation, batch.action)
        critic_loss = 0.5 * (q - y).square().mean(1).sum()

        act, log_prob = self.actor.sample(batch.observation, self.generator)
        entropy_gap = (log_prob.detach() + self.target_entropy).mean()
        if imitate:
            actor_loss = self._imitation(batch)
            temperature_loss = torch.zeros_like(entropy_gap)
        else:
            with _at_rest(self.critic):
                q_of_policy = self.value(self.critic, batch.observation, act).amin(0)
            actor_loss = (temperature * log_prob - q_of_policy).mean()
            if behaviour is not None:
                actor_loss = self.value_weight * actor_loss / q_of_policy.detach().abs().mean()
                actor_loss = actor_loss + self._imitation(behaviour)
            temperature_loss = -self.log_temperature * entropy_gap

        self.optimizer.zero_grad(set_to_none=True)
        (critic_loss + actor_loss + temperature_loss).backward()
        finite = self._skip_if_not_finite()
        self.optimizer.step()
        _approach(self.target, self.critic, self.target_rate)
        _approach(self.average, self.actor, self.averaging_rate)
        metrics = {
            "critic_loss": critic_loss.detach(),
            "q": q.detach().mean(),
            "largest_q": q.detach().abs().amax(),
            "entropy": -log_prob.detach().mean(),
            "temperature": temperature,
        }
        metrics = {name: torch.where(finite, value, 0.0) for name, value in metrics.items()}
        return metrics | {"skipped_steps": 1.0 - finite.to(q.dtype)}

    def _skip_if_not_finite(self) -> Tensor:
        """Makes every gradient zero where one is not finite: the step goes on by momentum alone.

        Nobody waits for the device; returns whether all were finite.
        """
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        finite = torch.stack([g.sum() for g in gradients]).isfinite().all()
        for gradient in gradients:
            gradient.masked_fill_(~finite, 0.0)
        return finite

    def _imitation(self, data: Batch) -> Tensor:
        return -self.actor.log_prob(data.observation, data.action).mean()

    @property
    def slowed(self) -> bool:
        """Whether it learns at less than its first rate."""
        return bool(self.optimizer.param_groups[0]["lr"] != self.learning_rate)

    def scale_learning_rate(self, factor: float) -> None:
        """Multiplies every learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] *= factor

    def state(self) -> dict[str, Tensor]:
        """Every tensor that decides how training goes on, but the generator."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        tensors = {
            "log_temperature": self.log_temperature.detach(),
            "learning_rates": torch.tensor(rates, dtype=torch.float64),
        }
        for name, network in self._networks().items():
            tensors |= {f"{name}.{k}": v for k, v in network.state_dict().items()}
        for i, parameter in enumerate(self._parameters()):
            moments = self.optimizer.state[parameter]
            tensors |= {f"adam.{i}.{k}": v for k, v in moments.items()}
        return tensors

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Goes on from `state`, that of an agent of the same sizes."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

        self.log_temperature.copy_(state["log_temperature"])
        rates = state["learning_rates"].tolist()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        for name, network in self._networks().items():
            network.load_state_dict(part(f"{name}."))
        for i, parameter in enumerate(self._parameters()):
            if moments := part(f"adam.{i}."):
                self.optimizer.state[parameter] = {k: v.clone() for k, v in moments.items()}

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _networks(self) -> dict[str, nn.Module]:
        return {
            "actor": self.actor,
            "average": self.average,
            "critic": self.critic,
            "target": self.target,
        }


@torch.no_grad()
def _approach(network: nn.Module, goal: nn.Module, rate: float) -> None:
    ours: list[Tensor] = list(network.parameters())
    theirs: list[Tensor] = list(goal.parameters())
    torch._foreach_lerp_(ours, theirs, rate)


@contextmanager
def _at_rest(network: nn.Module) -> Iterator[None]:
    """Gradients pass through the network's inputs and leave its parameters alone."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def _check(
    low: Tensor,
    high: Tensor,
    hidden: int,
    discount: float,
    learning_rate: float,
    target_rate: float,
    temperature: float,
) -> None:
    if not bool((low.isfinite() & high.isfinite() & (low < high)).all()):
        raise InputError(
            f"actions between {low.tolist()} and {high.tolist()}: soft actor-critic needs a "
            "bounded box"
        )
    if not 0 <= discount < 1:
        raise InputError(f"a discount of {discount}: choose one from 0 to below 1")
    if not 0 < learning_rate < math.inf or not 0 < target_rate <= 1:
        raise InputError(
            f"a learning rate of {learning_rate} and a target rate of {target_rate}: choose "
            "numbers above 0, the target rate at most 1"
        )
    if not temperature > 0:
        raise InputError(f"a temperature of {temperature}: choose a number above 0")
    if hidden < 1:
        raise InputError(f"{hidden} hidden units: choose at least 1")
