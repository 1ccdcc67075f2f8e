"""Soft actor-critic's update (Haarnoja et al. 2018b), by which every policy here learns.

For a batch of transitions (s, a, r, s', d), d = 1 where the episode terminated:

    y         = r + gamma (1 - d) (min_i Q'_i(s', a') - alpha log pi(a' | s')),   a' ~ pi(. | s')
    J(Q)      = sum_i mean (Q_i(s, a) - y)^2 / 2
    J(pi)     = mean (alpha log pi(b | s) - min_i Q_i(s, b)),                     b ~ pi(. | s)
    J(alpha)  = -log alpha mean (log pi(b | s) + target entropy)
    Q'       <- Q' + tau (Q - Q')

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
from mbrl_bilevel.agents.setting_groups import PolicySettings
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.networks import EnsembleMLP
from mbrl_bilevel.nested_state import State, load_moments, moments, nest, part


class SoftActorCritic:
    """Actor, twin critics, their targets and the temperature, with the one update that moves them.

    Args:
        low, high: bounds [a] of the actions, on the device that trains.
        generator: on the same device; decides the initial weights and every action sampled.
        soft_values: whether y includes the entropy of later actions, as above. Without it y is
            reward alone (Ball et al. 2023, "entropy backups"): below a negative target entropy the
            entropy is a price on every step to come.
        value_weight: alpha of Fujimoto and Gu (2021), for updates with `behaviour`.

    Raises:
        InputError: bounds that are not finite.
    """

    def __init__(
        self,
        settings: PolicySettings,
        obs_dim: int,
        low: Float[Tensor, "a"],
        high: Float[Tensor, "a"],
        generator: torch.Generator,
        *,
        soft_values: bool = True,
        value_weight: float = 2.5,
    ) -> None:
        if not bool((low.isfinite() & high.isfinite() & (low < high)).all()):
            raise InputError(
                f"actions between {low.tolist()} and {high.tolist()}: soft actor-critic needs a "
                "bounded box"
            )
        self.settings, self.generator = settings, generator
        self.soft_values, self.value_weight = soft_values, value_weight
        wanted = settings.target_entropy
        self.target_entropy = -float(len(low)) if wanted is None else wanted
        # In scaled rewards, as critics are; the setting is in the environment's own.
        scale = settings.reward_scale if settings.scale_temperature else 1.0
        with torch.device(low.device):
            self.actor = Actor(obs_dim, low, high, settings.policy_hidden, generator)
            # With normalised layers critics say little new about states unlike those they learned
            # from, and so cannot raise each other's values there (Ball et al. 2023, RLPD).
            activation = normalised_relu if settings.critic_layer_norm else torch.relu_
            sizes = 2, obs_dim + len(low), settings.policy_hidden, 1
            self.critic = two_layers(*sizes, generator, activation)
            self.target = two_layers(*sizes, generator, activation)
            log_temperature = math.log(scale * settings.temperature)
            self.log_temperature = nn.Parameter(torch.tensor(log_temperature))
        self.target.load_state_dict(self.critic.state_dict())
        self.target.requires_grad_(False)
        # What is evaluated (Polyak and Juditsky 1992): a policy that learns all the time is now and
        # then caught in the middle of a mistake.
        self.average = deepcopy(self.actor).requires_grad_(False)
        # One optimiser for all: their losses share no parameters, and one fused step is cheaper.
        self.optimizer = self._adam(low.is_cuda)

    def _adam(self, on_gpu: bool) -> torch.optim.Adam:
        rate, actor_rate = self.settings.policy_learning_rate, self.settings.actor_learning_rate
        groups: list[dict[str, Any]] = [
            {"params": list(self.critic.parameters())},
            # A slower actor leaves critics time to learn what its new actions are worth.
            {
                "params": list(self.actor.parameters()),
                "lr": rate if actor_rate is None else actor_rate,
            },
            {"params": [self.log_temperature]},
        ]
        return torch.optim.Adam(groups, lr=rate, fused=True, capturable=on_gpu)

    def value(
        self, critic: EnsembleMLP, obs: Float[Tensor, "b o"], act: Float[Tensor, "b a"]
    ) -> Float[Tensor, "2 b"]:
        """Q of both critics, which are shown actions in [-1, 1]."""
        # Inputs of one size, whatever the units of the environment's actions.
        unit = (act - self.actor.action_bias) / self.actor.action_scale
        return critic(torch.cat([obs, unit], -1)).squeeze(-1)

    def update(
        self, batch: Batch, *, imitate: bool = False, behaviour: Batch | None = None
    ) -> dict[str, Tensor]:
        """One gradient step of everything; metrics stay on the device.

        With `imitate` the actor clones the batch's actions, J(pi) = -mean log pi(a | s), and the
        temperature rests; the critics learn what that behaviour is worth. `behaviour` is data that
        the policy is to stay near: J(pi) becomes value_weight J(pi) / mean |Q| - mean log pi(a | s)
        (Fujimoto and Gu 2021; by the density in place of their squared distance, which of the mean
        of a squashed Gaussian would be least at actions too small).
        """
        temperature = self.log_temperature.detach().exp()
        critic_loss, q = self._critic_loss(batch)
        act, log_prob = self.actor.sample(batch.observation, self.generator)
        entropy_gap = (log_prob.detach() + self.target_entropy).mean()
        # Imitation leaves the temperature: the entropy is the data's then, not the policy's choice.
        if imitate:
            actor_loss = self._cloning_loss(batch)
            temperature_loss = torch.zeros_like(entropy_gap)
        else:
            actor_loss = self._actor_loss(batch, act, temperature * log_prob, behaviour)
            temperature_loss = -self.log_temperature * entropy_gap

        self.optimizer.zero_grad(set_to_none=True)
        (critic_loss + actor_loss + temperature_loss).backward()
        finite = self._skip_if_not_finite()
        self.optimizer.step()
        polyak_update(self.target, self.critic, self.settings.target_rate)
        polyak_update(self.average, self.actor, self.settings.averaging_rate)
        metrics = {
            "critic_loss": critic_loss.detach(),
            "q": q.detach().mean(),
            "largest_q": q.detach().abs().amax(),
            "entropy": -log_prob.detach().mean(),
            "temperature": temperature,
        }
        metrics = {name: torch.where(finite, value, 0.0) for name, value in metrics.items()}
        return metrics | {"skipped_steps": 1.0 - finite.to(q.dtype)}

    @torch.no_grad()
    def bellman_target(self, batch: Batch) -> Float[Tensor, "b"]:
        """y of the module's docstring, by the target critics and an action sampled for each row."""
        # The targets' minimum curbs overestimation (clipped double Q, Fujimoto et al. 2018).
        next_act, next_log_prob = self.actor.sample(batch.next_observation, self.generator)
        ahead = self.value(self.target, batch.next_observation, next_act).amin(0)
        if self.soft_values:
            ahead = ahead - self.log_temperature.exp() * next_log_prob
        return batch.reward + self.settings.discount * (1 - batch.terminated) * ahead

    def _critic_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Float[Tensor, "2 b"]]:
        """J(Q), and Q of the batch."""
        y = self.bellman_target(batch)
        q = self.value(self.critic, batch.observation, batch.action)
        return 0.5 * (q - y).square().mean(1).sum(), q

    def _actor_loss(
        self,
        batch: Batch,
        act: Float[Tensor, "b a"],
        entropy_cost: Float[Tensor, "b"],
        behaviour: Batch | None,
    ) -> Float[Tensor, ""]:
        """J(pi) of sampled actions; `entropy_cost` is alpha log pi of them."""
        # All losses go backward at once: the actor's must not reach the critics' gradients.
        with frozen(self.critic):
            q_of_policy = self.value(self.critic, batch.observation, act).amin(0)
        loss = (entropy_cost - q_of_policy).mean()
        if behaviour is None:
            return loss
        # Values of unit size, so that one weight suits rewards of any scale.
        loss = self.value_weight * loss / q_of_policy.detach().abs().mean()
        return loss + self._cloning_loss(behaviour)

    def _cloning_loss(self, data: Batch) -> Float[Tensor, ""]:
        return -self.actor.log_prob(data.observation, data.action).mean()

    def _skip_if_not_finite(self) -> Tensor:
        """Makes every gradient zero where one is not finite: the step goes on by momentum alone.

        Nobody waits for the device; returns whether all were finite.
        """
        parameters = (p for group in self.optimizer.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        # A sum is not finite where any entry is not, and costs one kernel a tensor.
        finite = torch.stack([g.sum() for g in gradients]).isfinite().all()
        for gradient in gradients:
            gradient.masked_fill_(~finite, 0.0)
        return finite

    @property
    def learning_rate_scaled(self) -> bool:
        """Whether it learns at less than its first rate."""
        rate = self.optimizer.param_groups[0]["lr"]
        return bool(rate != self.settings.policy_learning_rate)

    def scale_learning_rate(self, factor: float) -> None:
        """Multiplies every learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] *= factor

    def state(self) -> State:
        """Every tensor that decides how training goes on, but the generator."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        networks = {name: network.state_dict() for name, network in self._networks().items()}
        return nest(networks | {"adam": moments(self.optimizer)}) | {
            "log_temperature": self.log_temperature.detach(),
            "learning_rates": torch.tensor(rates, dtype=torch.float64),
        }

    @torch.no_grad()
    def load_state(self, state: State) -> None:
        """Goes on from `state`, that of networks of the same sizes."""
        self.log_temperature.copy_(state["log_temperature"])
        rates = state["learning_rates"].tolist()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        for name, network in self._networks().items():
            network.load_state_dict(part(state, name))
        load_moments(self.optimizer, part(state, "adam"))

    def _networks(self) -> dict[str, nn.Module]:
        return {
            "actor": self.actor,
            "average": self.average,
            "critic": self.critic,
            "target": self.target,
        }


@torch.no_grad()
def polyak_update(network: nn.Module, goal: nn.Module, rate: float) -> None:
    """Moves every parameter of `network` to that of `goal` by a share `rate` of the way."""
    ours: list[Tensor] = list(network.parameters())
    theirs: list[Tensor] = list(goal.parameters())
    torch._foreach_lerp_(ours, theirs, rate)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through the network's inputs and leave its parameters alone."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
