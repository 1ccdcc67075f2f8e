"""n-step targets along model rollouts, to the end of each (Feinberg et al. 2018, MVE).

One-step targets propagate a terminal value by one step per update of the target critics, about 200
policy updates each; n-step targets propagate it through a rollout at once. They are off-policy by
the age of the rollout, a thousand updates at most.
"""

import torch
from torch import Tensor

from mbrl_bilevel.data.replay import Batch


def multi_step(batch: Batch, rollouts: int, discount: float) -> Batch:
    """Transitions of `rollouts` branches, [t * rollouts] in the order of time, each led to its end.

    Row (t, i) becomes

        reward            sum_{k < n} discount^k r_{t+k}
        next_observation  s_{t+n}
        terminated        1 - discount^(n-1) (1 - d_{t+n-1})

    with n steps to the termination, or to the last step, of branch i: so that
    reward + discount (1 - terminated) V(next_observation) is its n-step target.
    """
    rewards, following, ends = (
        column.unflatten(0, (-1, rollouts))
        for column in (batch.reward, batch.next_observation, batch.terminated)
    )
    # Backwards: what follows a step is known when it is reached, so one pass over time is enough.
    reward, after, future = rewards[-1], following[-1], 1 - ends[-1]
    found = [(reward, after, future)]
    for t in range(len(rewards) - 2, -1, -1):
        on = 1 - ends[t]  # 0 where the rest is another episode's, which began in its place
        reward = rewards[t] + discount * on * reward
        after = torch.where(on.bool().unsqueeze(-1), after, following[t])
        future = discount * on * future
        found.append((reward, after, future))
    # `terminated` carries the discount of the steps in between, so that critics need not know n.
    columns: list[Tensor] = [torch.cat(column[::-1]) for column in zip(*found, strict=True)]
    return batch._replace(reward=columns[0], next_observation=columns[1], terminated=1 - columns[2])
