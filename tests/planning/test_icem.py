from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.planning import icem as icem_module
from mbrl_bilevel.planning.colored_noise import colored_noise
from mbrl_bilevel.planning.icem import ICEM
from mbrl_bilevel.protocols import Trajectories
from tests.planning.toy_problems import (
    START,
    A,
    B,
    ClosedTask,
    LinearModel,
    Poisoned,
    lq_optimum,
    lq_return,
    quadratic,
)

T = 8


def planner(**changes: Any) -> ICEM:
    settings: dict[str, Any] = {"action_low": [-8.0], "action_high": [8.0], "horizon": T}
    return ICEM(**{**settings, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_the_linear_quadratic_optimum_is_reached(beta: float) -> None:
    plan = planner(iterations=12, samples=300, beta=beta, population_decay=1.05)(
        LinearModel(A, B), ClosedTask(quadratic), START, seeded()
    )
    optimum, idle = (
        lq_optimum(START, T),
        lq_return(START, torch.zeros(3, T, 1, dtype=torch.float64)),
    )
    reached = (lq_return(START, plan) - idle) / (optimum - idle)
    assert (reached <= 1 + 1e-9).all()  # nothing beats the Riccati solution
    assert (reached > 0.99).all(), reached  # within 1 % of what there is to win


def test_an_optimum_outside_the_box_ends_on_its_face() -> None:
    aim = torch.tensor([9.0, -9.0])
    task = ClosedTask(lambda obs, act, next_obs: -(act - aim).square().sum(-1))
    box = {"action_low": [-1.0, -3.0], "action_high": [2.0, 0.5]}
    plan_in_box = planner(**box, init_std=1.0, iterations=20, samples=500, population_decay=1.0)
    model = LinearModel(A.float(), torch.zeros(2, 2))
    plan = plan_in_box(model, task, START.float(), seeded())
    torch.testing.assert_close(plan, torch.tensor([2.0, -3.0]).expand(3, T, 2), atol=0.01, rtol=0)
    for candidates in model.candidates:
        assert (candidates >= torch.tensor([-1.0, -3.0])).all()
        assert (candidates <= torch.tensor([2.0, 0.5])).all()


def fixed_noise(rows: list[int]) -> Callable[..., Tensor]:
    """Noise that belongs to the environment (by its number in `rows`), however they are batched."""
    calls = 0

    def noise(shape: tuple[int, ...], steps: int, beta: float, *_: Any, dtype: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.cat(
            [
                colored_noise((1, *shape[1:]), steps, beta, seeded(100 * row + calls), dtype=dtype)
                for row in rows
            ]
        )

    return noise


def test_a_batch_plans_as_its_environments_do_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def plans(rows: list[int]) -> Tensor:
        monkeypatch.setattr(icem_module, "colored_noise", fixed_noise(rows))
        plan, obs, steps = planner(), START[rows], []
        for _ in range(3):
            steps.append(plan(LinearModel(A, B), ClosedTask(quadratic), obs, seeded()))
            obs = obs @ A.T + steps[-1][:, 0] @ B.T
        return torch.stack(steps)

    alone = torch.cat([plans([row]) for row in range(3)], dim=1)
    torch.testing.assert_close(plans([0, 1, 2]), alone)


def test_the_kept_elites_and_the_mean_move_on_by_a_step() -> None:
    model, task, plan = LinearModel(A, B), ClosedTask(quadratic), planner(keep=0.5)
    plan(model, task, START, seeded())
    last = model.candidates[-1]
    returns = torch.stack([lq_return(START, last[:, i]) for i in range(last.shape[1])], 1)
    best = last.take_along_dim(returns.topk(5, dim=1).indices[..., None, None], dim=1)
    plan(model, task, START, seeded(1))
    shifted = torch.cat([best[:, :, 1:], best[:, :, -1:]], dim=2)
    torch.testing.assert_close(model.candidates[3][:, :5], shifted)
    assert [c.shape[1] for c in model.candidates] == [128, 107, 87, 133, 107, 87]


def test_a_warm_start_finds_better_plans() -> None:
    """With one small iteration a step, a second call at the same state must not start afresh."""
    cold, warm = [], []
    for seed in range(30):
        plan, generator = planner(iterations=1, samples=20, elites=4), seeded(seed)
        model, task = LinearModel(A, B), ClosedTask(quadratic)
        first = plan(model, task, START, generator)
        after = START @ A.T + first[:, 0] @ B.T
        warm.append(lq_return(after, plan(model, task, after, generator)))
        plan.reset()
        cold.append(lq_return(after, plan(model, task, after, generator)))
    gain = (torch.stack(warm) - torch.stack(cold)).flatten()
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5


def test_the_best_sequence_of_all_iterations_is_returned() -> None:
    """A model that pays only at its first call: later iterations must not replace its best."""
    calls: list[Tensor] = []

    class Fading:
        def trajectories(self, obs: Tensor, actions: Tensor, _: torch.Generator) -> Trajectories:
            calls.append(actions)
            rewards = actions[None, ..., 0] if len(calls) == 1 else actions[None, ..., 0] - 1e3
            states = torch.zeros(1, *actions.shape[:2], T + 1, 2, dtype=obs.dtype)
            return Trajectories(states, rewards)

    plan = planner()(Fading(), ClosedTask(), START, seeded())
    best = calls[0].sum((2, 3)).argmax(1)
    assert torch.equal(plan, calls[0][torch.arange(3), best])


def test_fewer_finite_sequences_than_elites_do_not_spoil_the_fit() -> None:
    plan, model = planner(init_std=0.1), Poisoned(-1.3)  # 1.6 deviations below: 7 of 128
    for seed in range(5):
        plan.reset()
        actions = plan(model, ClosedTask(quadratic), START, seeded(seed))
        assert actions.isfinite().all()
        assert (actions[:, 0, 0] <= -1.3).all()


def test_the_mean_of_the_elites_is_returned_where_it_is_asked_for() -> None:
    """One iteration without momentum: the plain mean of the best, by their returns."""
    model, task = LinearModel(A, B), ClosedTask(quadratic)
    one = {"iterations": 1, "momentum": 0.0, "elites": 4}
    plan = planner(**one, execute="mean")(model, task, START, seeded())
    candidates = model.candidates[0]
    returns = torch.stack([lq_return(START, c) for c in candidates.unbind(1)], 1)
    best = candidates.take_along_dim(returns.topk(4, dim=1).indices[..., None, None], dim=1)
    torch.testing.assert_close(plan, best.mean(1))
    top = planner(**one)(LinearModel(A, B), task, START, seeded())
    torch.testing.assert_close(top, best[:, 0])
