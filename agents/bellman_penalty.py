"""MOBILE's penalty: how far the members' Bellman targets lie apart (Sun et al. 2023, equation 7).

    T_e(s, a) = E_{s', r ~ member e} [r + gamma (1 - d(s')) (min_i Q'_i(s', a') - alpha log pi)],
                a' ~ pi(. | s')
    u(s, a)   = standard deviation over e of T_e(s, a)

A member's disagreement counts here only as far as it changes what the critics learn.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.agents.policy_learner import PolicyLearner
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.sampling import noise_like
from mbrl_bilevel.protocols import Task


class BellmanPenalty:
    """Penalises imagined transitions by the critics' targets, those of the latest update.

    Args:
        task: ends rollouts, and pays for them unless the model has learned the reward.
        samples: of each member's prediction; their mean stands for the expectation.
        weight: of the deviation, which is in the rewards that the critics learn from.
    """

    def __init__(
        self,
        model: DynamicsModel,
        task: Task,
        policy: PolicyLearner,
        generator: torch.Generator,
        *,
        samples: int,
        weight: float,
    ) -> None:
        self.model, self.task, self.policy, self.generator = model, task, policy, generator
        self.samples, self.weight = samples, weight

    @torch.no_grad()
    def penalised(self, batch: Batch) -> Batch:
        """The same transitions, rewards less weight u(s, a)."""
        penalty = self.weight * self.deviation(batch.observation, batch.action)
        # A step that a model which has diverged cannot follow keeps its reward.
        penalty = torch.where(penalty.isfinite(), penalty, 0.0)
        return batch._replace(reward=batch.reward - penalty)

    @torch.no_grad()
    def deviation(self, obs: Float[Tensor, "b o"], act: Float[Tensor, "b a"]) -> Float[Tensor, "b"]:
        """u(s, a) over the elites, in shaped rewards."""
        size, learner = self.model.obs_dim, self.policy.networks
        gaussian = self.model.elite_network()(self.model.inputs(obs, act))
        mean, std = (x.expand(self.samples, *x.shape) for x in (gaussian.mean, gaussian.std))
        y = self.model.widen(torch.addcmul(mean, std, noise_like(mean, self.generator)))
        y = self.model.target_standardizer.restore(y)
        shape = y.shape[:-1]
        rows, actions = (x.expand(*shape, -1).flatten(0, -2) for x in (obs, act))
        y = y.flatten(0, -2)
        after = rows + y[:, :size]
        paid = self.task.reward
        reward = y[:, size] if paid is None else paid(rows, actions, after)
        ends = self.task.terminated(after).to(reward.dtype)
        moved = self.policy.shaped(Batch(rows, actions, reward, after, ends))
        return learner.bellman_target(moved).reshape(shape).mean(0).std(0, correction=0)
