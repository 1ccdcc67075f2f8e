"""Soft actor-critic as the agents run it: its actions, its rewards, its metrics, its divergence."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.agents.critic_file import save_critic
from mbrl_bilevel.agents.cuda_graph import CudaGraphUpdate
from mbrl_bilevel.agents.learner_state import REMEDY
from mbrl_bilevel.agents.metric_sums import MetricSums
from mbrl_bilevel.agents.policy_file import save_policy
from mbrl_bilevel.agents.policy_updates import SoftActorCritic
from mbrl_bilevel.agents.setting_groups import PolicySettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.nested_state import State, nest, part
from mbrl_bilevel.training.divergence import TrainingDiverged

MANY = 0.1  # of the updates since metrics were last read: skipped because they were not finite
DIVERGED = 10.0  # times the largest value that rewards and entropy could add up to

Update = Callable[..., dict[str, Tensor]]


class PolicyLearner:
    """A policy in training.

    Args:
        soft_values, value_weight: see `SoftActorCritic`.
    """

    def __init__(
        self,
        settings: PolicySettings,
        spaces: Spaces,
        generator: torch.Generator,
        *,
        soft_values: bool = True,
        value_weight: float = 2.5,
    ) -> None:
        self.settings, self.generator = settings, generator
        self.networks = SoftActorCritic(
            settings,
            spaces.obs_dim,
            *spaces.action_bounds(generator.device),
            generator,
            soft_values=soft_values,
            value_weight=value_weight,
        )
        # On the CPU there is no launch overhead to save.
        on_gpu = generator.device.type == "cuda"
        self.graphs = CudaGraphUpdate(self.networks) if on_gpu else None
        self.sums = MetricSums("policy")

    def random_action(self) -> np.ndarray:
        """A uniformly random action [a]."""
        actor, device = self.networks.actor, self.generator.device
        unit = torch.rand(actor.action_bias.shape, generator=self.generator, device=device)
        return (actor.action_bias + (2 * unit - 1) * actor.action_scale).cpu().numpy()

    def act(self, observation: np.ndarray) -> np.ndarray:
        """An action [a] of the policy, sampled, for one observation [o]."""
        row = torch.as_tensor(observation, dtype=torch.float32, device=self.generator.device)
        return self.sample(row.unsqueeze(0))[0].cpu().numpy()

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """Sampled actions [b, a] for observations [b, o]."""
        # Of the actor itself, not of its average: exploration and rollouts are to be its own.
        return self.networks.actor.sample(obs, self.generator)[0]

    @property
    def discount(self) -> float:
        return self.settings.discount

    @property
    def termination_cost(self) -> float:
        return self.settings.termination_cost

    @torch.no_grad()
    def values(self, obs: Float[Tensor, "b o"], act: Float[Tensor, "b a"]) -> Float[Tensor, "b"]:
        """The smaller of both critics' Q, in the environment's own units of reward."""
        networks, device = self.networks, self.generator.device
        q = networks.value(networks.critic, obs.to(device), act.to(device)).amin(0)
        return q / self.settings.reward_scale

    def shaped(self, batch: Batch) -> Batch:
        """Rewards as they are learned from: reward_scale (r - termination_cost d).

        To a discounted value what falls early and fast may be worth as much as what goes on; the
        cost ends that (Thomas et al. 2021, SMBPO). Critics take long to reach large values, which
        the scale is for (Haarnoja et al. 2018a).
        """
        reward = batch.reward - self.settings.termination_cost * batch.terminated
        return batch._replace(reward=self.settings.reward_scale * reward)

    def update(
        self, batch: Batch, *, imitate: bool = False, behaviour: Batch | None = None
    ) -> None:
        """One update by shaped transitions: `SoftActorCritic.update`."""
        update: Update = self.graphs or self.networks.update
        how = {"imitate": True} if imitate else {"behaviour": behaviour}
        # Summed on the device: reading a metric at every update would wait for it.
        self.sums.add(update(batch, **how))

    def metrics(
        self, step: int, real: Replay, imagined_reward: Tensor | None = None
    ) -> dict[str, float]:
        """Averages since the last call; waits for the device.

        `imagined_reward` is the largest absolute one that the policy has learned from, unshaped.

        Raises:
            TrainingDiverged: critics beyond what rewards could add up to, or not finite.
        """
        found = self.sums.take()
        if found:
            reward = real.in_order().reward.abs().max()
            if imagined_reward is not None:
                reward = torch.maximum(reward, imagined_reward)
            self._check(found, step, reward.item(), real.act_dim)
        return found

    def _check(self, found: dict[str, float], step: int, reward: float, act_dim: int) -> None:
        settings, skipped = self.settings, found["policy/skipped_steps"]
        if skipped >= MANY:
            raise TrainingDiverged(
                f"{skipped:.0%} of the updates before step {step} were not finite; {REMEDY}, or "
                "look for outliers in the data"
            )
        # Soft values pay alpha per nat, of which an action has at most log 2 per dimension.
        a_step = settings.reward_scale * reward + found["policy/temperature"] * act_dim
        end = settings.reward_scale * settings.termination_cost
        possible = a_step / (1 - settings.discount) + end
        # By a bound that the data give: critics that have diverged may be finite for long.
        largest = found["policy/largest_q"]
        if largest > DIVERGED * possible or not all(map(math.isfinite, found.values())):
            raise TrainingDiverged(
                f"the critic diverged by step {step}: values up to {largest:.3g} where the rewards "
                f"seen add up to {possible:.3g} at most; {REMEDY}"
            )

    @property
    def learning_rate_scaled(self) -> bool:
        """Whether it learns at less than its first rate."""
        return self.networks.learning_rate_scaled

    def scale_learning_rate(self, factor: float) -> None:
        """Multiplies every learning rate."""
        self.networks.scale_learning_rate(factor)
        self._forget_graphs()  # rates are constants of a captured graph

    def _forget_graphs(self) -> None:
        if self.graphs is not None:
            self.graphs.forget()

    def weights(self) -> dict[str, np.ndarray]:
        """The averaged actor, as `BehaviourPolicy` acts by it."""
        return self.networks.average.weights()

    def save(self, folder: Path, metadata: Mapping[str, str]) -> None:
        """Writes the averaged actor, and the critics beside it; `metadata` as of `save_policy`."""
        save_policy(folder, self.weights(), metadata)
        save_critic(folder, self.networks.critic, self.settings)

    def state(self) -> State:
        return nest({"networks": self.networks.state(), "sums": self.sums.state()})

    def load_state(self, state: State) -> None:
        self.networks.load_state(part(state, "networks"))
        self.sums.load_state(part(state, "sums"))
        self._forget_graphs()  # Adam's moments are other tensors now
