"""The return of a differentiated rollout against a slow loop."""

import pytest
import torch

from mbrl_bilevel.agents.model_return import Rollout, model_return


def slow_return(rollout, last_value, alpha, discount, first_entropy):
    horizon, rows = rollout.rewards.shape
    found = []
    for b in range(rows):
        total = 0.0
        for t in range(horizon + 1):
            if not rollout.alive[t, b]:
                break
            entropy = -alpha * rollout.log_probs[t, b].item()
            if t == 0 and not first_entropy:
                entropy = 0.0
            gain = (rollout.rewards[t, b] if t < horizon else last_value[b]).item()
            total += discount**t * (gain + entropy)
        found.append(total)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("first_entropy", [False, True])
def test_returns_are_those_of_a_slow_loop_whatever_stands_behind_a_termination(first_entropy):
    horizon, rows = 5, 40
    g = torch.Generator().manual_seed(1)
    rewards, log_probs = (torch.randn(horizon + k, rows, generator=g).double() for k in (0, 1))
    value = torch.randn(rows, generator=g).double()
    ends = torch.randint(1, horizon + 2, (rows,), generator=g)
    alive = (torch.arange(horizon + 1).unsqueeze(-1) < ends).double()
    assert set(ends.tolist()) == set(range(1, horizon + 2))
    rewards[alive[:-1] == 0] = torch.nan
    log_probs[alive == 0] = torch.nan
    value[alive[-1] == 0] = torch.inf
    nowhere = torch.zeros(rows, 3)
    rollout = Rollout(nowhere, nowhere, rewards, log_probs, alive, [])
    alpha = torch.tensor(0.3, dtype=torch.float64)
    found = model_return(rollout, value, alpha, 0.9, first_entropy=first_entropy)
    expected = slow_return(rollout, value, 0.3, 0.9, first_entropy)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
