"""A terminal value for tasks that balance: the cost to return to rest, by a Riccati equation."""

from dataclasses import dataclass
from typing import NamedTuple

import gymnasium
import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.envs.stepping import CheckedSteps
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.protocols import Task, TrajectoryModel

STARTS, SEQUENCES, STEPS, PUSH = 40, 12, 3, 0.3  # imagined around rest; PUSH in half-widths
LINEAR = 0.98  # share of a dimension's variance that must follow linearly for it to be kept
ACTION_COST = 0.03  # cost of an action of usual size, in the largest cost of a state of usual size
LARGEST_COST = 1e6  # of P, in costs of a state: beyond it no action stabilises the state
REST_STEPS = 100  # steps whose reward the value at rest adds up


@dataclass(frozen=True)
class RestValue:
    """V(s) = worth - z' P z, z the deviation from rest in the dimensions `kept`.

    Where rest pays (worth > 0), V is never below 0, so that no plan ends its episode to escape it.

    P solves the discrete Riccati equation of the model, linearised around rest, and of the
    task's reward to second order. A planner whose horizon ends in it needs to look only a few steps
    ahead; without it, sampled sequences cannot look far ahead in an unstable system, where the
    effect of early actions grows with every later step.
    """

    rest: Float[Tensor, "k"]
    P: Float[Tensor, "k k"]
    kept: tuple[int, ...]
    worth: float

    def __call__(self, obs: Float[Tensor, "*s o"]) -> Float[Tensor, "*s"]:
        z = obs[..., list(self.kept)] - self.rest.to(obs)
        value = self.worth - (z @ self.P.to(obs) * z).sum(-1)
        return value.clamp_min(0.0) if self.worth > 0 else value


def rest_value(
    env: gymnasium.Env, model: TrajectoryModel, task: Task, generator: torch.Generator
) -> RestValue:
    """The value around the states that `env` resets to, from what `model` imagines there.

    Short random sequences from `STARTS` resets are fitted by z' = A z + B u + c and by a quadratic
    reward; rest is the fixed point of the former nearest to the resets. Dimensions that do not
    follow linearly (cosines, contact forces) are left out.

    Raises:
        InputError: there is nothing there to balance: rest cannot be reached by any action.
    """
    seen = _imagine(env, model, task, generator)
    scale = seen.before.std(0)
    moving = np.flatnonzero(scale > 1e-8)
    kept = moving[_linear_share(seen, moving) > LINEAR]
    if not len(kept):
        raise InputError(_no_rest(task))
    z, after = seen.before[:, kept] / scale[kept], seen.after[:, kept] / scale[kept]
    push = seen.actions.std(0)
    one = np.ones((len(z), 1))
    weights = np.linalg.lstsq(np.hstack([z, seen.actions / push, one]), after, rcond=None)[0].T
    k = len(kept)
    A, B, c = weights[:, :k], weights[:, k:-1], weights[:, -1]
    # Least squares, for A may have an eigenvalue of 1: a cart rests anywhere.
    rest = np.linalg.lstsq(np.eye(k) - A, c, rcond=1e-2)[0]
    Q, reward = _cost(after - rest, seen.rewards)
    size = np.linalg.eigvalsh(Q)[-1]
    try:
        P = scipy.linalg.solve_discrete_are(A, B, Q, ACTION_COST * size * np.eye(B.shape[1]))
    except np.linalg.LinAlgError:
        raise InputError(_no_rest(task)) from None
    if not np.linalg.eigvalsh(P)[-1] < LARGEST_COST * size:
        raise InputError(_no_rest(task))
    # Back from units of each dimension's deviation.
    P = P / np.outer(scale[kept], scale[kept])
    return RestValue(
        torch.as_tensor(rest * scale[kept]),
        torch.as_tensor(P),
        tuple(kept.tolist()),
        REST_STEPS * reward,
    )


class _Imagined(NamedTuple):
    before: Float[np.ndarray, "r o"]
    actions: Float[np.ndarray, "r a"]
    after: Float[np.ndarray, "r o"]
    rewards: Float[np.ndarray, "r"]


def _imagine(
    env: gymnasium.Env, model: TrajectoryModel, task: Task, generator: torch.Generator
) -> _Imagined:
    """Rows of imagined steps, each start's live environment as it is: an oracle looks at it."""
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    device = generator.device
    low, high = (torch.as_tensor(bound, device=device) for bound in (space.low, space.high))
    shape = (1, SEQUENCES, STEPS, len(low))
    parts: list[tuple[Tensor, ...]] = []
    steps = CheckedSteps(env)
    for seed in range(STARTS):
        start = steps.reset(seed, "a start for the terminal value")
        obs = torch.as_tensor(start, dtype=torch.float32, device=device)
        unit = 2 * torch.rand(shape, generator=generator, device=device) - 1
        actions = (low + high) / 2 + PUSH * unit * (high - low) / 2
        imagined = model.trajectories(obs.unsqueeze(0), actions, generator)
        before, after = imagined.observations[..., :-1, :], imagined.observations[..., 1:, :]
        acts = actions.expand(len(before), *shape)
        rewards = imagined.rewards if task.reward is None else task.reward(before, acts, after)
        assert rewards is not None
        alive = task.terminated(after).cumsum(-1) == 0
        parts.append((before[alive], acts[alive], after[alive], rewards[alive]))
    stacked = (torch.cat(rows).double().cpu().numpy() for rows in zip(*parts, strict=True))
    return _Imagined(*stacked)


def _linear_share(seen: _Imagined, moving: np.ndarray) -> np.ndarray:
    """R2 of each moving dimension's next value as a linear function of all of them and actions."""
    inputs = np.hstack([seen.before[:, moving], seen.actions, np.ones((len(seen.before), 1))])
    after = seen.after[:, moving]
    left = after - inputs @ np.linalg.lstsq(inputs, after, rcond=None)[0]
    share: np.ndarray = 1 - left.var(0) / after.var(0).clip(1e-16)
    return share


def _cost(z: np.ndarray, rewards: np.ndarray) -> tuple[np.ndarray, float]:
    """Q > 0 and r0 of the best fit r = r0 + g' z - z' Q z."""
    rows, columns = np.triu_indices(z.shape[1])
    features = np.hstack([np.ones((len(z), 1)), z, z[:, rows] * z[:, columns]])
    fitted = np.linalg.lstsq(features, rewards, rcond=None)[0]
    Q = np.zeros((z.shape[1], z.shape[1]))
    Q[rows, columns] = -fitted[1 + z.shape[1] :]
    values, vectors = np.linalg.eigh((Q + Q.T) / 2)
    # a reward that is the same at every step says nothing of states: then all count the same
    floor = max(1e-3 * values[-1], 1e-6)
    return (vectors * values.clip(floor)) @ vectors.T, float(fitted[0])


def _no_rest(task: Task) -> str:
    return (
        f"--terminal-value rest: by this model no actions hold {task.env_id} at rest near its "
        "starts, because the model has learned too little or the task is not one of balance: train "
        "it longer, or choose --terminal-value none"
    )
