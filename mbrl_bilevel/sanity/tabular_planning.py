"""Planning in learned tables: does the value gap close as real transitions come in?"""

from typing import Any, NamedTuple

import gymnasium
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.sanity.check import Check, check
from mbrl_bilevel.sanity.over_seeds import Estimate, at_most, estimate
from mbrl_bilevel.sanity.tabular_mdp import (
    TabularMDP,
    collect,
    counts,
    error,
    make,
    policy_value,
    tabular_mdp,
    value_gap,
    value_iteration,
)
from mbrl_bilevel.sanity.tabular_rewards import (
    by_gradient,
    by_learned_reward,
    by_rule,
    frequencies,
)

COUNTS, RULE, LEARNED = "counts", "pg, u* rule", "pg, learned U(s, a)"
OUTER_SHARE = 0.2  # of the transitions, the last in time


class Setting(NamedTuple):
    """How an MDP is explored, and its undiscounted optimal return where that is known."""

    name: str
    sizes: tuple[int, int]
    seeds: int
    discount: float
    optimal_return: float


SETTINGS = (
    # 14 / 17: chance to cross the slippery 4 x 4 lake, given time; 7.93 is the mean over Taxi's
    # 300 starts of 20 less one for every step but the last of the shortest way
    Setting("FrozenLake", (2_000, 20_000), 10, 0.99, 14 / 17),
    Setting("Taxi", (5_000, 40_000), 4, 0.95, 7.93),
)


class Outcome(NamedTuple):
    """Of each seed: value gap, exact NLL and total variation of one model at one size."""

    gap: Float[Tensor, "e"]
    nll: Float[Tensor, "e"]
    variation: Float[Tensor, "e"]


def models(
    transitions: Int[Tensor, "e t 3"], mdp: TabularMDP
) -> dict[str, Float[Tensor, "e s a s"]]:
    """The dynamics by every objective, from the same transitions.

    The reward is learned from a split in time; its model, like the others, then sees them all.
    """
    inner_steps = round((1 - OUTER_SHARE) * transitions.shape[1])
    inner = counts(transitions[:, :inner_steps], mdp.P)
    outer = counts(transitions[:, inner_steps:], mdp.P)
    return {
        COUNTS: frequencies(inner + outer),
        RULE: by_rule(inner + outer),
        LEARNED: by_learned_reward(inner, outer)[0],
    }


def outcomes(setting: Setting, seed: int) -> dict[int, dict[str, Outcome]]:
    """Every model at every number of transitions; the smaller data are the first of the larger."""
    env = make(setting.name)
    mdp = tabular_mdp(env)
    seeds = range(seed, seed + setting.seeds)
    transitions = torch.stack([collect(env, max(setting.sizes), s) for s in seeds])
    found = {}
    for size in setting.sizes:
        seen = transitions[:, :size]
        visits = counts(seen, mdp.P).sum(-1)
        found[size] = {
            name: Outcome(value_gap(P, mdp, setting.discount), *error(P, mdp, visits))
            for name, P in models(seen, mdp).items()
        }
    return found


def exact_checks(setting: Setting) -> list[Check]:
    """Planning in the true process: the known return, and two ways to the same value."""
    mdp = tabular_mdp(make(setting.name))
    value = (value_iteration(mdp.P, mdp, 1.0).amax(-1) @ mdp.start).item()
    Q = value_iteration(mdp.P, mdp, setting.discount)
    twice = policy_value(Q.argmax(-1), mdp, setting.discount) - Q.amax(-1) @ mdp.start
    name = setting.name
    return [
        check(f"{name}: optimal return", value, setting.optimal_return, 1e-5),
        check(f"{name}: value iteration less linear solve", twice.item(), 0.0, 1e-5),
    ]


def gradient_checks(seed: int) -> list[Check]:
    """The policy gradient on FrozenLake's transitions ends at the logits of theory T7."""
    env: gymnasium.Env[Any, Any] = make("FrozenLake")
    seen = counts(collect(env, 2_000, seed), tabular_mdp(env).P)
    b = 2.0
    far = (by_gradient(seen, b) - (2 * b * frequencies(seen)).softmax(-1)).abs().amax()
    return [check("FrozenLake: policy gradient against closed form", far.item(), 0.0, 1e-5)]


def learning_checks(setting: Setting, found: dict[int, dict[str, Outcome]]) -> list[Check]:
    """The value gap falls with the data; the learned reward beats the published rule's NLL.

    The fall is the paired difference over seeds; 2 standard errors above its mean must still be
    below 0. NLLs may differ by those, or by 1e-3 nats: in a deterministic MDP all are 0 but for
    rounding and for the outer level's last steps, and every reward has the same greedy policy.
    """
    few, many = (found[size] for size in setting.sizes)
    checks = []
    for model in (COUNTS, LEARNED):
        fall = estimate(many[model].gap - few[model].gap)
        name = f"{setting.name}, {model}: change of the value gap, upper end"
        checks.append(at_most(name, fall.mean + 2 * fall.error, 0.0))
    for size, at in found.items():
        worse = estimate(at[LEARNED].nll - at[RULE].nll)
        name = f"{setting.name}, {size} transitions: NLL of learned U less that of the rule"
        checks.append(at_most(name, worse.mean, 0.0, max(1e-3, 2 * worse.error)))
    return checks


def rows(found: dict[str, Outcome]) -> dict[str, dict[str, Estimate]]:
    """Mean and standard error over seeds of every metric, by model."""
    return {
        model: {name: estimate(values) for name, values in outcome._asdict().items()}
        for model, outcome in found.items()
    }
