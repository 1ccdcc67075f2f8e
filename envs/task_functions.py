"""The functions of a task as anybody may write them, made to return one value for each state."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import one_line
from mbrl_bilevel.protocols import Task

REWARD, TERMINATION = "reward", "termination"
SMALL = 0.1  # of random states and actions on which functions are tried


@dataclass(frozen=True)
class Rewards:
    """A reward function in the precision and on the device of the observations.

    Its values may be floats, integers or booleans, of shape [*s] or [*s, 1], as tensor or numpy
    array, or one plain number for all states.

    Raises:
        InputError: by a call, for anything else.
    """

    env_id: str
    function: Callable[..., Any]

    def __call__(
        self,
        obs: Float[Tensor, "*s o"],
        act: Float[Tensor, "*s a"],
        next_obs: Float[Tensor, "*s o"],
    ) -> Float[Tensor, "*s"]:
        """One reward for each state, in the dtype and on the device of `next_obs`."""
        value = self.function(obs, act, next_obs)
        return _one_each(REWARD, self.env_id, value, next_obs).to(next_obs.dtype)


@dataclass(frozen=True)
class Terminations:
    """A termination function whose values are booleans; as `Rewards`, of 0 and 1 if of numbers."""

    env_id: str
    function: Callable[..., Any]

    def __call__(self, next_obs: Float[Tensor, "*s o"]) -> Bool[Tensor, "*s"]:
        """One boolean for each state, on the device of `next_obs`."""
        return _one_each(TERMINATION, self.env_id, self.function(next_obs), next_obs).bool()


def _one_each(what: str, env_id: str, given: Any, next_obs: Tensor) -> Tensor:
    shape = next_obs.shape[:-1]
    value, returned = given, type(given).__name__
    if isinstance(given, (bool, int, float, np.bool_, np.integer, np.floating)):
        value = torch.full(shape, float(given), dtype=torch.float64)
    elif isinstance(given, np.ndarray) and given.dtype.kind in "biuf":
        value = torch.from_numpy(given.copy())
    if isinstance(value, Tensor) and not value.is_complex():
        if value.shape == shape:
            return value.to(next_obs.device)
        if value.shape == (*shape, 1):
            return value.to(next_obs.device).squeeze(-1)
        returned = f"values of shape {list(value.shape)}"
    raise InputError(
        f"the {what} function of {env_id} returned {returned} for states of shape "
        f"{list(next_obs.shape)}: it must return one number for each, {list(shape)}"
    )


def check_task(task: Task, obs_dim: int, act_dim: int, device: torch.device | str = "cpu") -> None:
    """Tries the functions of a task on small states and actions.

    Raises:
        InputError: one that fails, returns no value for each state alone, or writes into its input.
    """
    check_termination(task, obs_dim, device)
    if task.reward is not None:
        obs, act, next_obs = _states(obs_dim, act_dim, obs_dim, device=device)
        _check(REWARD, task.env_id, task.reward, obs, act, next_obs)


def check_termination(task: Task, obs_dim: int, device: torch.device | str = "cpu") -> None:
    """As `check_task`, of the termination function alone.

    Raises:
        InputError: it fails, returns other values than 0 and 1, or writes into its input.
    """
    (next_obs,) = _states(obs_dim, device=device)
    _check(TERMINATION, task.env_id, task.terminated, next_obs)
    if isinstance(task.terminated, Terminations):
        values = _one_each(
            TERMINATION, task.env_id, task.terminated.function(next_obs.clone()), next_obs
        )
        if bool(((values != 0) & (values != 1)).any()):
            raise InputError(
                f"the termination function of {task.env_id} returned "
                f"{values.flatten()[values.flatten() != 0][0].item():g}: "
                "it must return True or False, or 1 or 0"
            )


def _states(*sizes: int, device: torch.device | str) -> list[Tensor]:
    """Batches [2, t, size]; t is no size, lest a function of the wrong axis go unnoticed."""
    generator = torch.Generator().manual_seed(0)
    t = max(sizes) + 1
    batches = [SMALL * torch.randn(2, t, size, generator=generator) for size in sizes]
    for batch in batches:
        batch[0, 0] = 0.0
    return [batch.to(device) for batch in batches]


def _check(what: str, env_id: str, function: Callable[..., Tensor], *inputs: Tensor) -> None:
    shapes = " and ".join(str(list(x.shape)) for x in inputs)
    given = [x.clone() for x in inputs]
    try:
        together = function(*given)
        alone = function(*(x[1] for x in given))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the {what} function of {env_id} fails on tensors of shape {shapes} "
            f"({type(error).__name__}: {one_line(error)}): it must take any leading shape"
        ) from error
    if not all(map(torch.equal, given, inputs)):
        raise InputError(
            f"the {what} function of {env_id} writes into the states that it is given: let it work "
            "on copies"
        )
    if not _close(together[1], alone):
        raise InputError(
            f"the {what} function of {env_id} returns another value for a state where other states "
            "stand beside it: index dimensions as obs[..., 0] and reduce the last axis alone"
        )


def _close(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first.double(), second.double(), rtol=1e-4, atol=1e-5, equal_nan=True)
