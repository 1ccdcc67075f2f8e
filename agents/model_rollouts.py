"""Rollouts of a policy in a model, branched from real states, and the replay of them."""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.agents.bellman_penalty import BellmanPenalty
from mbrl_bilevel.agents.metric_sums import MetricSums
from mbrl_bilevel.agents.multi_step import multi_step
from mbrl_bilevel.agents.policy_learner import PolicyLearner
from mbrl_bilevel.agents.rollout_cut import RolloutCut
from mbrl_bilevel.agents.setting_groups import RolloutSettings, StartStateSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.envs.learned_vector_env import LearnedVectorEnv
from mbrl_bilevel.envs.observation_bounds import outside_bounds, unbounded, warn_of_bounds
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.nested_state import State, nest, part
from mbrl_bilevel.protocols import Task, TransitionModel

ANYWHERE = StartStateSettings(recent_starts=0.0)


class ModelRollouts:
    """Transitions that the model imagines for the policy: branched, kept, and sampled.

    Args:
        task: ends rollouts, and pays for them unless the model has learned the reward.
        policy: acts in them, and shapes their rewards.
        starts: which real states they branch from; by default any.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        model: TransitionModel,
        task: Task,
        policy: PolicyLearner,
        spaces: Spaces,
        generator: torch.Generator,
        *,
        starts: StartStateSettings = ANYWHERE,
    ) -> None:
        self.settings, self.starts = settings, starts
        self.model, self.task, self.policy, self.spaces = model, task, policy, spaces
        self.generator = generator
        # Older rounds come from models and policies that have been left behind.
        self.replay = Replay(settings.capacity, spaces.obs_dim, spaces.act_dim, generator.device)
        self.outside = torch.zeros(spaces.obs_dim, dtype=torch.bool, device=generator.device)
        """Dimensions in which real observations have been outside the observation space."""
        self.largest_reward = torch.zeros((), device=generator.device)
        self.round_sizes: list[int] = []  # of the latest rounds: steps that count
        self.sums = MetricSums("rollout")
        self.bellman: BellmanPenalty | None = None
        if settings.penalty == "bellman":
            assert isinstance(model, DynamicsModel)  # others are refused in checks.py
            weight, samples = settings.penalty_weight, settings.penalty_samples
            self.bellman = BellmanPenalty(
                model, task, policy, generator, samples=samples, weight=weight
            )

    def branch(self, real: Replay, step: int) -> None:
        """One round: rollouts of the policy from real states, into the replay."""
        count = self.settings.rollouts
        batch, metrics = self.imagine(self.start_states(real, count), step)
        # Before shaping: critics are held against what the environment's own units allow.
        self.largest_reward = torch.maximum(self.largest_reward, batch.reward.abs().amax())
        batch = self.policy.shaped(batch)
        if self.settings.multi_step:
            batch = multi_step(batch, count, self.policy.settings.discount)
        self.replay.add(batch)
        self.round_sizes = [*self.round_sizes, len(batch.reward)][-self.settings.imagined_rounds :]
        self.sums.add(metrics)

    def start_states(self, real: Replay, count: int) -> Float[Tensor, "b o"]:
        """Real states to branch from: a share of recent ones, the others from all.

        What the policy does now is otherwise a small part of what is held, and its mistakes are too
        few for critics to learn from.
        """
        states, recent = real.in_order().observation, self.starts.recent_states
        # Masks on the device: a branch on the draws would wait for it.
        chance, share = torch.rand(2, count, generator=self.generator, device=states.device)
        among_recent = chance < self.starts.recent_starts
        span = torch.where(among_recent, min(recent, len(states)), len(states))
        back = (share * span).long()  # steps before the latest
        return states[len(states) - 1 - back]

    @torch.no_grad()
    def imagine(self, starts: Float[Tensor, "m o"], step: int) -> tuple[Batch, dict[str, Tensor]]:
        """Rollouts from `starts`, all at once; where one ends, another begins.

        States are samples of the model, actions of the policy. Transitions stand in the order of
        time, [t * rollouts] unless rollouts are cut; rewards are less the penalty, not shaped.
        """
        length = self.settings.rollout_length(step)
        self._note_bounds(starts)
        env = self._environment(starts, length)
        # A Python loop over time alone: each step needs the last, all rollouts go at once.
        obs = env.reset_tensors()
        parts, penalties, counted = [], [], []
        cut = self._cut()
        for _ in range(length):
            action = self.policy.sample(obs)
            if cut is not None:
                counted.append(cut.counts(obs, action))
            moved = env.step_tensors(action)
            ends = moved.terminated.to(obs.dtype)
            parts.append(Batch(obs, action, moved.reward, moved.next_observation, ends))
            penalties.append(moved.penalty.mean())
            obs = moved.observation
            if cut is not None:
                cut.begin_again(moved.terminated)
        batch = concatenated(*parts)
        metrics = {
            "rollout_length": torch.tensor(float(length)),
            "penalty": torch.stack(penalties).mean(),
            "imagined_reward": batch.reward.mean(),
            "imagined_terminations": batch.terminated.mean(),
        }
        if cut is None:
            return batch, metrics
        rows = torch.cat(counted)
        metrics["counted_steps"] = rows.float().mean()
        return Batch(*(column[rows] for column in batch)), metrics

    def _cut(self) -> RolloutCut | None:
        settings = self.settings
        if settings.rollout_cut == "none":
            return None
        assert isinstance(self.model, DynamicsModel)  # others are refused in checks.py
        return RolloutCut(self.model, settings.cut_quantile, settings.cut_scale, settings.rollouts)

    def _environment(self, starts: Float[Tensor, "m o"], length: int) -> LearnedVectorEnv:
        penalty, weight = self.settings.penalty, self.settings.penalty_weight
        in_rewards = penalty in ("aleatoric", "disagreement")  # a Bellman penalty: when sampled
        return LearnedVectorEnv(
            self.model,
            self.task,
            starts,
            num_envs=self.settings.rollouts,
            time_limit=length,
            action_space=self.spaces.action,
            observation_space=unbounded(self.spaces.observation, self.outside),
            uncertainty_penalty=weight if in_rewards else 0.0,
            penalty="disagreement" if penalty == "disagreement" else "aleatoric",
            seed=int(torch.randint(2**62, (), generator=self.generator, device=starts.device)),
        )

    def _note_bounds(self, starts: Float[Tensor, "m o"]) -> None:
        """Gives up bounds that real observations do not keep to, with one warning for each."""
        space = self.spaces.observation
        new = outside_bounds(space, starts) & ~self.outside
        if bool(new.any()):
            warn_of_bounds(self.task.env_id, self.task.observation_names, space, starts, new)
            self.outside |= new

    def sample(self, count: int) -> Batch:
        """`count` of the transitions in the latest rounds.

        A Bellman penalty is subtracted from their rewards now, by the critics of now.
        """
        batch = self.replay.sample(count, self.generator, newest=sum(self.round_sizes))
        if self.bellman is None:
            return batch
        penalised = self.bellman.penalised(batch)
        self.sums.add({"bellman_penalty": (batch.reward - penalised.reward).mean()})
        return penalised

    def state(self) -> State:
        parts = {"replay": self.replay.state(), "sums": self.sums.state()}
        return nest(parts) | {
            "outside": self.outside.clone(),
            "largest_reward": self.largest_reward,
            "round_sizes": torch.tensor(self.round_sizes, dtype=torch.int64),
        }

    def load_state(self, state: State) -> None:
        self.replay.load_state(part(state, "replay"))
        self.sums.load_state(part(state, "sums"))
        self.outside.copy_(state["outside"])
        self.largest_reward = state["largest_reward"].clone()
        self.round_sizes = state["round_sizes"].tolist()


def concatenated(*batches: Batch) -> Batch:
    """The transitions of all batches, in their order."""
    return Batch(*(torch.cat(columns) for columns in zip(*batches, strict=True)))
