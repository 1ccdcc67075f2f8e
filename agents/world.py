"""The learned world of a Dyna agent: a dynamics model, kept up with the data, and its rollouts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from gymnasium.spaces import Box
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.envs.learned_vector_env import LearnedVectorEnv
from mbrl_bilevel.envs.observation_bounds import outside_bounds, unbounded, warn_of_bounds
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.one_step import one_step
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.uncertainty import Penalty
from mbrl_bilevel.protocols import Task

BLOCK = 50  # steps that are held out, or left out, together: neighbours in time are alike

Refit = Callable[[DynamicsModel, Transitions], Mapping[str, float]]
ActFunction = Callable[[Float[Tensor, "b o"]], Float[Tensor, "b a"]]


@dataclass(frozen=True)
class LengthSchedule:
    """Rollout length by real steps: linear from (first_step, shortest) to (last_step, longest).

    Of MBPO (Janner et al. 2019, appendix C), where lengths are whole and never shrink.
    """

    shortest: int = 1
    longest: int = 1
    first_step: int = 0
    last_step: int = 1

    def __post_init__(self) -> None:
        good = 1 <= self.shortest <= self.longest and 0 <= self.first_step < self.last_step
        if not good:
            raise InputError(
                f"rollout lengths from {self.shortest} at step {self.first_step} to {self.longest} "
                f"at step {self.last_step}: lengths start at 1, and neither they nor the steps may "
                "fall"
            )

    def __call__(self, step: int) -> int:
        share = (step - self.first_step) / (self.last_step - self.first_step)
        share = min(max(share, 0.0), 1.0)
        return int(self.shortest + share * (self.longest - self.shortest))


class World:
    """A dynamics model and how a policy's imagined experience comes out of it.

    Args:
        refit: fits the model to transitions, in place, and returns its held-out metrics.
        rollouts: branches at a time, each from a real state.
        penalty: uncertainty that is taken off the reward, `penalty_weight` times (MOPO, Yu et al.
            2020); "none" takes nothing off.
    """

    def __init__(
        self,
        model: DynamicsModel,
        task: Task,
        refit: Refit,
        generator: torch.Generator,
        *,
        observation_space: Box,
        action_space: Box,
        rollouts: int = 20_000,
        length: LengthSchedule | None = None,
        penalty: Penalty | Literal["none"] = "none",
        penalty_weight: float = 0.0,
    ) -> None:
        self.model, self.task, self.refit, self.generator = model, task, refit, generator
        self.rollouts, self.length = rollouts, length or LengthSchedule()
        kind: Penalty = "aleatoric" if penalty == "none" else penalty
        self.observation_space = observation_space
        self.outside = torch.zeros(model.obs_dim, dtype=torch.bool, device=generator.device)
        """Dimensions in which real observations have been outside that space."""
        self.environment: dict[str, Any] = {
            "action_space": action_space,
            "uncertainty_penalty": 0.0 if penalty == "none" else penalty_weight,
            "penalty": kind,
        }
        self.learned_from = 0  # transitions of the replay when the model was last fitted

    def learn(self, data: Batch, added: int) -> dict[str, float]:
        """Fits the model to real data, oldest first; judges it before on what is new to it."""
        transitions = in_blocks(data)
        metrics: dict[str, float] = {}
        if self.learned_from:
            fresh = transitions[-(added - self.learned_from) :]
            error = one_step(
                self.model.network.select(self.model.elites), *self.model.encode(fresh)
            )
            metrics = {"model/fresh_rmse": error.rmse, "model/fresh_nll": error.nll}
        metrics |= {f"model/{k}": v for k, v in self.refit(self.model, transitions).items()}
        self.learned_from = added
        return metrics

    @torch.no_grad()
    def imagine(
        self, starts: Float[Tensor, "m o"], act: ActFunction, step: int
    ) -> tuple[Batch, dict[str, Tensor]]:
        """Rollouts of the policy from `starts`, all at once; where one ends, another begins.

        Its states are the model's samples, its actions the policy's; nothing in it is real.
        """
        length = self.length(step)
        self._note_bounds(starts)
        env = LearnedVectorEnv(
            self.model,
            self.task,
            starts,
            num_envs=self.rollouts,
            time_limit=length,
            observation_space=unbounded(self.observation_space, self.outside),
            seed=int(torch.randint(2**62, (), generator=self.generator, device=starts.device)),
            **self.environment,
        )
        obs = env.reset_tensors()
        parts, penalties = [], []
        for _ in range(length):
            action = act(obs)
            moved = env.step_tensors(action)
            ends = moved.terminated.to(obs.dtype)
            parts.append(Batch(obs, action, moved.reward, moved.next_observation, ends))
            penalties.append(moved.penalty.mean())
            obs = moved.observation
        batch = Batch(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        metrics = {
            "rollout_length": torch.tensor(float(length)),
            "penalty": torch.stack(penalties).mean(),
            "imagined_reward": batch.reward.mean(),
            "imagined_terminations": batch.terminated.mean(),
        }
        return batch, metrics

    def _note_bounds(self, starts: Float[Tensor, "m o"]) -> None:
        """Gives up bounds that real observations do not keep to, with a warning once for each."""
        new = outside_bounds(self.observation_space, starts) & ~self.outside
        if bool(new.any()):
            task, space = self.task, self.observation_space
            warn_of_bounds(task.env_id, task.observation_names, space, starts, new)
            self.outside |= new

    def state(self) -> dict[str, Tensor]:
        weights = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        return weights | {
            "learned_from": torch.tensor(self.learned_from),
            "outside": self.outside.clone(),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        weights = {k: v for k, v in state.items() if k.startswith("model.")}
        elites = weights.pop("model.elites")
        self.model.elites = elites
        self.model.restrict(weights.pop("model.informative"))
        for name, tensor in self.model.state_dict().items():
            if name not in ("elites", "informative"):
                tensor.copy_(weights[f"model.{name}"])
        self.learned_from = int(state["learned_from"])
        self.outside.copy_(state["outside"])


def in_blocks(data: Batch) -> Transitions:
    """Transitions in the order of time, whose blocks of 50 stand for episodes.

    They are what is held out, or dealt to a fold, as a whole: a learner that began a thousand steps
    ago may have seen one episode only.
    """
    nowhere = torch.zeros_like(data.terminated, dtype=torch.bool)
    block = torch.arange(len(data.reward), device=data.reward.device) // BLOCK
    return Transitions(
        data.observation,
        data.action,
        data.reward,
        data.next_observation,
        data.terminated.bool(),
        nowhere,
        block,
    )
