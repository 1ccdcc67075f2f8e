"""A learned dynamics model as a vector of environments on the device."""

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl_bilevel.envs.learned_env_checks import check_model, check_starts, checked_mask
from mbrl_bilevel.envs.observation_bounds import bounds, kept_bounds
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.finite import finite_rows
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.sampling import take_rows
from mbrl_bilevel.models.uncertainty import Penalty, check_penalty, sample_with_uncertainty
from mbrl_bilevel.protocols import NextStep, Task, TransitionModel


class LearnedStep(NamedTuple):
    """One step of every environment; each row is a transition that really was imagined.

    `next_observation` is where the action led; `observation` is where the next action is taken:
    the same, or a fresh start where the episode ended. `penalty` is already subtracted from
    `reward`.
    """

    observation: Float[Tensor, "b o"]
    reward: Float[Tensor, "b"]
    terminated: Bool[Tensor, "b"]
    truncated: Bool[Tensor, "b"]
    next_observation: Float[Tensor, "b o"]
    penalty: Float[Tensor, "b"]


class LearnedVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` environments whose dynamics are a learned model, moved by one sample a step.

    Every step of every environment takes a fresh elite of the model (`DynamicsModel.sample`). The
    physics may stand in its place: any `TransitionModel`.
    Episodes begin at uniformly drawn rows of `starts` and end where the task says so
    (terminated) or after `time_limit` steps (truncated). Rewards come from the task's function, or
    from the model's reward head where the task has none, less `uncertainty_penalty` times
    the elites' uncertainty (`sample_with_uncertainty`). Autoreset is gymnasium's SAME_STEP: a
    finished episode's last observation stands in `infos["final_obs"]`. The model is shown
    actions clipped to the box, as simulators clip forces; the reward function sees them as they
    are.

    A prediction that is not finite ends the episode: terminated, reward 0, no penalty, the last
    finite observation kept; `non_finite_steps` counts them.

    Args:
        starts: observations of a data set, in the environment's own units.
        time_limit: steps of an episode at the most.
        action_space: of the real environment.
        observation_space: of the real environment, to which predictions are clipped; None: no
            bounds but those of the model. Dimensions in which starts lie outside are not clipped,
            with a UserWarning.
        uncertainty_penalty: reward units per unit of uncertainty; 0 computes none.
        penalty: which uncertainty.
        seed: of the generator, on the model's device, that decides everything random.

    Raises:
        InputError: a model of another environment or of other sizes; starts that do not fit it or
            are not finite; neither task nor model with a reward, or what `check_task` refuses;
            fewer than 1 environments or steps; a negative penalty, or disagreement among fewer
            than 2 elites.
    """

    def __init__(
        self,
        model: TransitionModel,
        task: Task,
        starts: Float[Tensor, "m o"],
        *,
        num_envs: int,
        time_limit: int,
        action_space: Box,
        observation_space: Box | None = None,
        uncertainty_penalty: float = 0.0,
        penalty: Penalty = "aleatoric",
        seed: int = 0,
    ) -> None:
        if observation_space is None:
            observation_space = Box(-np.inf, np.inf, (model.obs_dim,))
        check_model(model, task, observation_space, action_space)
        check_starts(starts, observation_space)
        observation_space = kept_bounds(task, observation_space, starts)
        if num_envs < 1 or time_limit < 1:
            raise InputError(
                f"num_envs {num_envs} and time_limit {time_limit}: each must be at least 1"
            )
        if isinstance(model, DynamicsModel):
            check_penalty(model, uncertainty_penalty, penalty)
        elif uncertainty_penalty:
            raise InputError(
                f"uncertainty_penalty {uncertainty_penalty} in {type(model).__name__}: only a "
                "learned model is uncertain; choose 0"
            )
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.num_envs, self.time_limit = num_envs, time_limit
        self.single_observation_space = _float32(observation_space)
        self.single_action_space = _float32(action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.model, self.task = model, task
        self.uncertainty_penalty, self.penalty = uncertainty_penalty, penalty
        like = model.lowest
        self.starts = starts.to(like)
        self.generator = torch.Generator(like.device).manual_seed(seed)
        self._action_bounds = bounds(self.single_action_space, like)
        self._observation_bounds = bounds(self.single_observation_space, like)
        self._observation: Tensor | None = None
        self._elapsed = torch.zeros(num_envs, dtype=torch.long, device=like.device)
        self._non_finite = torch.zeros((), dtype=torch.long, device=like.device)

    @property
    def non_finite_steps(self) -> int:
        """How many predictions were not finite since construction."""
        return int(self._non_finite)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Fresh starts, of all environments or of those in `options["reset_mask"]` (bool [b]).

        `seed` seeds the one generator of all environments, whichever of them are reset. Starts
        outside the range of the model's training data are warned of, once.

        Raises:
            InputError: a mask of another shape or type, or without any environment.
        """
        super().reset(seed=seed)
        if seed is not None:
            self.generator.manual_seed(seed)
        mask = None
        if options is not None and "reset_mask" in options:
            given = checked_mask(options["reset_mask"], self.num_envs)
            mask = torch.tensor(given, device=self.starts.device)
        fresh = self.reset_tensors(mask)
        self.model.check_starts(fresh)
        return _to_numpy(fresh), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Observations, rewards (float32), terminated, truncated and infos, as `SyncVectorEnv`'s.

        Where a penalty is on, `infos["penalty"]` holds it; that of a step that ended its episode
        stands in `infos["final_info"]`, beside the observation in `infos["final_obs"]`.

        Raises:
            InputError: actions of another shape.
            gymnasium.error.ResetNeeded: no reset yet.
        """
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise InputError(
                f"actions of shape {list(actions.shape)}: "
                f"they must have shape {list(self.action_space.shape or ())}"
            )
        step = self.step_tensors(self.starts.new_tensor(actions))
        terminated, truncated = step.terminated.cpu().numpy(), step.truncated.cpu().numpy()
        infos = self._infos(step, terminated | truncated)
        observations, rewards = _to_numpy(step.observation), _to_numpy(step.reward)
        return observations, rewards, terminated, truncated, infos

    @torch.no_grad()
    def reset_tensors(self, mask: Bool[Tensor, "b"] | None = None) -> Float[Tensor, "b o"]:
        """Fresh starts where `mask` is True (everywhere without one), as a tensor on the device.

        Raises:
            gymnasium.error.ResetNeeded: a mask before the first reset of all.
        """
        fresh = self._draw_starts()
        if mask is None:
            self._observation = fresh
            self._elapsed = torch.zeros_like(self._elapsed)
        else:
            self._observation = torch.where(mask.unsqueeze(-1), fresh, self._current())
            self._elapsed = self._elapsed.masked_fill(mask, 0)
        return self._observation

    @torch.no_grad()
    def step_tensors(self, actions: Float[Tensor, "b a"]) -> LearnedStep:
        """`step` for those who train on the device: nothing is copied to the host.

        Raises:
            gymnasium.error.ResetNeeded: no reset yet.
        """
        actions = self.model.cast(actions)
        obs, act = self._current(), actions.clamp(*self._action_bounds)
        sampled, penalty = self._sample(obs, act)
        after, reward = sampled.observation.clamp(*self._observation_bounds), sampled.reward
        if self.task.reward is not None:
            reward = self.task.reward(obs, actions, after)
        assert reward is not None
        broken = ~(finite_rows(after) & reward.isfinite() & penalty.isfinite())
        penalty = penalty.masked_fill(broken, 0.0)
        reward = (reward - penalty).masked_fill(broken, 0.0)
        after = torch.where(broken.unsqueeze(-1), obs, after)
        terminated = self.task.terminated(after) | broken
        elapsed = self._elapsed + 1
        truncated = elapsed >= self.time_limit
        done = terminated | truncated
        observation = torch.where(done.unsqueeze(-1), self._draw_starts(), after)
        self._observation, self._elapsed = observation, elapsed.masked_fill(done, 0)
        self._non_finite = self._non_finite + broken.sum()
        return LearnedStep(observation, reward, terminated, truncated, after, penalty)

    def _sample(
        self, obs: Float[Tensor, "b o"], act: Float[Tensor, "b a"]
    ) -> tuple[NextStep, Float[Tensor, "b"]]:
        """The model's next step, and its penalty, weight applied."""
        model, weight = self.model, self.uncertainty_penalty
        if weight == 0 or not isinstance(model, DynamicsModel):
            step = model.sample(obs, act, self.generator, check_starts=False)
            return step, obs.new_zeros(len(obs))
        step, unsure = sample_with_uncertainty(model, obs, act, self.generator, self.penalty)
        return step, weight * unsure

    def _current(self) -> Float[Tensor, "b o"]:
        if self._observation is None:
            raise ResetNeeded("call reset() before the first step of a learned environment")
        return self._observation

    def _draw_starts(self) -> Float[Tensor, "b o"]:
        rows = torch.randint(
            len(self.starts),
            (self.num_envs,),
            generator=self.generator,
            device=self.starts.device,
        )
        return take_rows(self.starts, rows)

    def _infos(self, step: LearnedStep, done: np.ndarray) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        if done.any():
            final = np.full(self.num_envs, None, dtype=object)
            last = _to_numpy(step.next_observation)
            for i in np.flatnonzero(done):
                final[i] = last[i]
            infos = {"final_obs": final, "_final_obs": done.copy()}
            infos |= {"final_info": {}, "_final_info": done.copy()}
        if self.uncertainty_penalty > 0:
            penalty = _to_numpy(step.penalty)
            for where, rows in ((infos, ~done), (infos.get("final_info", {}), done)):
                if rows.any():
                    where |= {"penalty": np.where(rows, penalty, 0.0), "_penalty": rows.copy()}
        return infos


def _float32(space: Box) -> Box:
    return Box(space.low.astype(np.float32), space.high.astype(np.float32))


def _to_numpy(tensor: Tensor) -> np.ndarray:
    """A float32 copy: what a user writes into it must not reach the environment's own state."""
    return tensor.to("cpu", torch.float32, copy=True).numpy()
