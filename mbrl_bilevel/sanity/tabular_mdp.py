"""Finite Markov decision processes of gymnasium: exact planning, real transitions, value gaps.

Arrays run over whole MDPs: P [S, A, S], R [S, A] and, in front, models of several seeds. What is
learned is the dynamics alone. The reward function R(s, a) = E[r | s, a] is the true one, read from
the environment's own table, and so are the states that end an episode.
"""

from typing import Any, NamedTuple

import gymnasium
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError


class TabularMDP(NamedTuple):
    """The true process, in float64; `terminal` states end an episode and are worth nothing."""

    P: Float[Tensor, "s a s"]
    R: Float[Tensor, "s a"]
    terminal: Bool[Tensor, "s"]
    start: Float[Tensor, "s"]


def make(name: str) -> gymnasium.Env[Any, Any]:
    """The newest version of an environment of gymnasium, such as FrozenLake or Taxi.

    Raises:
        InputError: gymnasium knows no such environment.
    """
    versions = [spec.version or 0 for spec in gymnasium.registry.values() if spec.name == name]
    if not versions:
        raise InputError(f"environment {name!r} is unknown to gymnasium; name one of its own")
    return gymnasium.make(f"{name}-v{max(versions)}")


def tabular_mdp(env: gymnasium.Env[Any, Any]) -> TabularMDP:
    """P, R and terminal states from the table of the environment, `env.unwrapped.P`."""
    table: Any = env.unwrapped
    states, actions = len(table.P), len(table.P[0])
    rows = torch.tensor(
        [
            (s, a, s2, p, r, done)
            for s in range(states)
            for a in range(actions)
            for p, s2, r, done in table.P[s][a]
        ],
        dtype=torch.float64,
    )
    s, a, s2 = rows[:, :3].long().unbind(-1)
    p, r, done = rows[:, 3:].unbind(-1)
    P = torch.zeros(states, actions, states, dtype=torch.float64)
    P.index_put_((s, a, s2), p, accumulate=True)
    R = torch.zeros(states, actions, dtype=torch.float64)
    R.index_put_((s, a), p * r, accumulate=True)
    terminal = torch.zeros(states, dtype=torch.bool)
    terminal[s2[done > 0]] = True
    return TabularMDP(
        P, R, terminal, torch.as_tensor(table.initial_state_distrib, dtype=torch.float64)
    )


def collect(env: gymnasium.Env[Any, Any], steps: int, seed: int) -> Int[Tensor, "t 3"]:
    """(s, a, s') of `steps` real transitions under uniformly random actions, in order of time."""
    state, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    seen = []
    for _ in range(steps):
        action = env.action_space.sample()
        after, _, terminated, truncated, _ = env.step(action)
        seen.append((state, action, after))
        state = env.reset()[0] if terminated or truncated else after
    return torch.tensor(seen)


def counts(
    transitions: Int[Tensor, "*e t 3"], like: Float[Tensor, "s a s"]
) -> Float[Tensor, "*e s a s"]:
    """How often each (s, a, s') occurs, for every seed."""
    states, actions, _ = like.shape
    s, a, s2 = transitions.unbind(-1)
    place = (s * actions + a) * states + s2
    found = torch.zeros(*place.shape[:-1], like.numel(), dtype=like.dtype)
    found.scatter_add_(-1, place, torch.ones_like(place, dtype=like.dtype))
    return found.reshape(*place.shape[:-1], *like.shape)


def value_iteration(
    P: Float[Tensor, "*e s a s"],
    mdp: TabularMDP,
    discount: float,
    tolerance: float = 1e-8,
    most: int = 20_000,
) -> Float[Tensor, "*e s a"]:
    """Q of the optimal policy of every model, the Bellman update repeated to its fixed point.

    V <- max_a R + discount P V, until no value moves by more than `tolerance`.

    Raises:
        InputError: it does not settle within `most` updates.
    """
    alive = (~mdp.terminal).to(P.dtype)
    V = P.new_zeros(*P.shape[:-3], P.shape[-1])
    for _ in range(most):
        Q = mdp.R + discount * (P @ (alive * V)[..., None, :, None])[..., 0]
        new = Q.amax(-1)
        moved = (alive * (new - V)).abs().amax()
        V = new
        if moved <= tolerance:
            return Q
    raise InputError(
        f"value iteration at discount {discount} still moves by {moved:.2g} after {most} updates; "
        "lower the discount"
    )


def policy_value(
    policy: Int[Tensor, "*e s"], mdp: TabularMDP, discount: float
) -> Float[Tensor, "*e"]:
    """The true expected return of each policy from the start: (I - discount P_pi) V = R_pi."""
    states = torch.arange(policy.shape[-1])
    alive = (~mdp.terminal).to(mdp.P.dtype)
    P, R = mdp.P[states, policy] * alive, mdp.R[states, policy]
    eye = torch.eye(len(states), dtype=P.dtype)
    return torch.linalg.solve(eye - discount * P, R[..., None])[..., 0] @ mdp.start


def value_gap(
    models: Float[Tensor, "*e s a s"], mdp: TabularMDP, discount: float
) -> Float[Tensor, "*e"]:
    """What the greedy policies of learned models lose in the true process: J(pi*) - J(pi)."""
    best = value_iteration(mdp.P, mdp, discount).argmax(-1)
    found = value_iteration(models, mdp, discount).argmax(-1)
    return policy_value(best, mdp, discount) - policy_value(found, mdp, discount)


def error(
    models: Float[Tensor, "*e s a s"], mdp: TabularMDP, visits: Float[Tensor, "*e s a"]
) -> tuple[Float[Tensor, "*e"], Float[Tensor, "*e"]]:
    """Exact NLL and total variation of p(s' | s, a) in the true process, weighted by visits."""
    weight = (visits / visits.sum((-2, -1), keepdim=True))[..., None]
    nll = -(weight * torch.special.xlogy(mdp.P, models)).sum((-3, -2, -1))
    return nll, 0.5 * (weight * (models - mdp.P).abs()).sum((-3, -2, -1))
