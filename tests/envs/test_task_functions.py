"""Whatever a task's functions return is one value for each state, or one sentence."""

from typing import Any

import numpy as np
import pytest
import torch

from mbrl_bilevel.envs.task_functions import check_task
from mbrl_bilevel.envs.tasks import TASKS, Task, register_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.score import Scoring
from mbrl_bilevel.protocols import Trajectories
from tests.envs.learned_environments import walk

OBS, ACT, NEXT = (
    torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(i)) for i in (0, 1, 2)
)
NEAR = NEXT[..., 0].abs() < 0.5


def near(next_obs: torch.Tensor) -> torch.Tensor:
    return next_obs[..., 0].abs() < 0.5


def never(next_obs: torch.Tensor) -> torch.Tensor:
    return next_obs[..., 0] > 1e9


REWARDS: dict[str, Any] = {
    "bool": lambda o, a, n: near(n),
    "int64": lambda o, a, n: near(n).long(),
    "uint8": lambda o, a, n: near(n).byte(),
    "float64": lambda o, a, n: near(n).double(),
    "float16": lambda o, a, n: near(n).half(),
    "[*, 1]": lambda o, a, n: near(n)[..., None],
    "[*, 1] float": lambda o, a, n: near(n)[..., None].float(),
    "numpy": lambda o, a, n: np.abs(n[..., 0].numpy()) < 0.5,
    "numpy [*, 1]": lambda o, a, n: (np.abs(n[..., 0:1].numpy()) < 0.5).astype(np.float32)[
        ..., ::-1
    ],
}
TERMINATIONS = {
    "float": lambda n: near(n).float(),
    "int": lambda n: near(n).int(),
    "[*, 1]": lambda n: near(n)[..., None],
    "[*, 1] float": lambda n: near(n)[..., None].double(),
    "numpy": lambda n: near(n).numpy(),
}
CONSTANTS = [1.0, 1, True, np.float32(1.0), np.bool_(True)]


@pytest.mark.situation("right")
@pytest.mark.parametrize("kind", REWARDS)
def test_rewards_of_every_kind_are_the_same_numbers(kind: str) -> None:
    task = Task("Own-v0", REWARDS[kind], never, ("x", "y"))
    check_task(task, 2, 2)
    assert task.reward is not None
    for dtype in (torch.float32, torch.float64):
        found = task.reward(OBS.to(dtype), ACT.to(dtype), NEXT.to(dtype))
        assert found.dtype == dtype
        assert torch.equal(found, NEAR.to(dtype))


@pytest.mark.situation("right")
@pytest.mark.parametrize("kind", TERMINATIONS)
def test_terminations_of_every_kind_are_the_same_booleans(kind: str) -> None:
    task = Task("Own-v0", None, TERMINATIONS[kind], ("x", "y"))
    check_task(task, 2, 2)
    found = task.terminated(NEXT)
    assert found.dtype == torch.bool
    assert torch.equal(found, NEAR)


@pytest.mark.situation("right")
@pytest.mark.parametrize("one", CONSTANTS)
def test_one_plain_number_is_that_of_every_state(one: Any) -> None:
    task = Task("Own-v0", lambda o, a, n: one, lambda n: one, ("x", "y"))
    check_task(task, 2, 2)
    assert task.reward is not None
    assert torch.equal(task.reward(OBS, ACT, NEXT), torch.ones(3, 4))
    assert torch.equal(task.terminated(NEXT), torch.ones(3, 4, dtype=torch.bool))


class Futures:
    """The same futures of every plan: positions 0, 1, 0.3, 0.1."""

    def trajectories(self, obs: Any, actions: Any, generator: Any) -> Trajectories:
        x = torch.tensor([0.0, 1.0, 0.3, 0.1])
        return Trajectories(torch.stack([x, x], -1).expand(1, 1, 1, 4, 2), None)


@pytest.mark.situation("right")
@pytest.mark.parametrize("kind", REWARDS)
def test_plans_and_imagined_steps_count_them(kind: str) -> None:
    """0 for position 1, 1 for position 0.3, which also ends it: 1 of 2."""
    for terminated in TERMINATIONS.values():
        task = Task("Walk-v0", REWARDS[kind], terminated, ("x", "y"))
        actions, generator = torch.zeros(1, 1, 3, 2), torch.Generator()
        scored = Scoring()(Futures(), task, torch.zeros(1, 2), actions, generator)
        assert scored.returns.tolist() == [[1.0]]
        env = walk(task=task, starts=torch.tensor([[0.75, 0.0]]), num_envs=2)
        env.reset(seed=0)
        moves = np.array([[-0.5, 0.0], [0.5, 0.0]], np.float32)
        _, rewards, ended, _, _ = env.step(moves)
        assert (rewards.tolist(), ended.tolist()) == ([1.0, 0.0], [True, False])


def summed(o: Any, a: Any, n: torch.Tensor) -> Any:
    return n.square().sum()


def writes(o: Any, a: Any, n: torch.Tensor) -> Any:
    n[..., 0] = 0
    return n[..., 1]


BAD_REWARDS: dict[str, tuple[Any, str]] = {
    "nothing": (lambda o, a, n: None, "returned NoneType for states"),
    "a list": (lambda o, a, n: [1.0], "returned list for states"),
    "complex": (lambda o, a, n: n[..., 0] * 1j, "returned Tensor for states"),
    "every dimension": (lambda o, a, n: -n.abs(), "returned values of shape [2, 3, 2] for states"),
    "one of all": (summed, "returned values of shape [] for states"),
    "one of all, plain": (lambda *x: summed(*x).item(), "where other states stand beside it"),
    "the wrong axis": (lambda o, a, n: n[:, 0], "returned values of shape [2, 2] for states"),
    "no such dimension": (lambda o, a, n: n[..., 7], "fails on tensors of shape [2, 3, 2] and"),
    "of the batch": (lambda o, a, n: n[..., 0] - n[..., 0].mean(), "stand beside it"),
    "writing": (writes, "writes into the states that it is given"),
    "bad arithmetic": (lambda o, a, n: 1 / 0, "(ZeroDivisionError: division by zero)"),
}


@pytest.mark.situation("refused")
@pytest.mark.parametrize("name", BAD_REWARDS)
def test_a_reward_function_that_is_none_is_one_sentence(name: str) -> None:
    function, words = BAD_REWARDS[name]
    task = Task("Own-v0", function, never, ("x", "y"))
    with pytest.raises(InputError) as error:
        check_task(task, 2, 1)
    sentence = str(error.value)
    assert sentence.startswith("the reward function of Own-v0 ")
    assert words in sentence
    assert len(sentence.splitlines()) == 1


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    "name", ["nothing", "every dimension", "no such dimension", "the wrong axis"]
)
def test_a_termination_function_that_is_none_is_refused_as_its_task_is_registered(
    name: str,
) -> None:
    function, _ = BAD_REWARDS[name]
    task = Task("Own-v0", None, lambda n: function(n, n, n), ("x", "y"))
    with pytest.raises(InputError, match=r"^the termination function of Own-v0 "):
        register_task(task)
    assert "Own-v0" not in TASKS


@pytest.mark.situation("refused")
@pytest.mark.parametrize("function", [lambda n: n[..., 0], lambda n: 2, lambda n: near(n) * 3])
def test_a_termination_that_is_neither_true_nor_false(function: Any) -> None:
    task = Task("Own-v0", None, function, ("x", "y"))
    with pytest.raises(InputError, match="it must return True or False, or 1 or 0"):
        check_task(task, 2, 1)


@pytest.mark.situation("refused")
def test_learned_environments_try_the_functions_at_once() -> None:
    with pytest.raises(InputError, match=r"^the reward function of Walk-v0 returned values"):
        walk(task=Task("Walk-v0", lambda o, a, n: n, never, ("x", "y")))


@pytest.mark.situation("right")
@pytest.mark.parametrize("env_id", list(TASKS))
def test_shipped_tasks_pass(env_id: str) -> None:
    names = TASKS[env_id].observation_names
    act_dim = {"Ant": 8, "Pusher": 7, "Hopper": 3, "Reacher": 2, "Swimmer": 2, "Walker2d": 6}
    kind = env_id.partition("-")[0]
    check_task(TASKS[env_id], len(names), act_dim.get(kind, 1 if "Pendulum" in kind else 6))
