"""Policies that collect data: the shipped actors, and uniform random actions."""

from collections.abc import Collection, Mapping
from importlib.resources import as_file, files
from itertools import count
from typing import Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from jaxtyping import Float32
from numpy import ndarray
from safetensors import safe_open

from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
LEAST_STD = np.float32(1e-3)  # beside a softplus; keeps the density of an action finite


def _relu(x: ndarray) -> ndarray:
    return np.maximum(x, 0)


def _silu(x: ndarray) -> ndarray:
    return x / (1 + np.exp(np.minimum(-x, 80)))  # e^88 would overflow float32


ACTIVATIONS = {"relu": _relu, "silu": _silu}


def hidden_layers(names: Collection[str]) -> int:
    """How many hidden layers w1, w2, ... an actor has."""
    return next(i for i in count() if f"w{i + 1}" not in names)


@runtime_checkable
class Policy(Protocol):
    """Actions for a batch of observations, sampled by `generator`; without one, deterministic."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """At least env_id, policy and algorithm."""
        ...

    def __call__(
        self, observation: ndarray, generator: np.random.Generator | None = None
    ) -> ndarray:
        """Actions [b, a] for observations [b, o] in the environment's own units."""
        ...


class RandomPolicy:
    """Uniform actions in the box; without a generator, its centre."""

    def __init__(self, action_low: ndarray, action_high: ndarray, env_id: str) -> None:
        self.action_low, self.action_high = action_low, action_high
        self.metadata = {"env_id": env_id, "policy": "random", "algorithm": "uniform random"}

    def __call__(
        self, observation: ndarray, generator: np.random.Generator | None = None
    ) -> ndarray:
        """Actions [b, a] for observations [b, o], of which only the number counts."""
        shape = (len(observation), *self.action_low.shape)
        unit = np.full(shape, 0.5) if generator is None else generator.random(shape)
        return (self.action_low + unit * (self.action_high - self.action_low)).astype(np.float32)


class BehaviourPolicy:
    """A squashed Gaussian actor of hidden layers w1, b1, w2, b2, ... (Haarnoja et al. 2018).

    action = low + (tanh(mean + std noise) + 1) / 2 (high - low), where mean is a linear head of the
    last hidden layer, and std = exp(log_std) of a head that is clipped to [-20, 2], or
    softplus(raw_std) + 1e-3. `metadata` names env_id, policy, the measured returns and, unless it
    is ReLU, the activation.
    """

    def __init__(self, weights: Mapping[str, ndarray], metadata: Mapping[str, str]) -> None:
        self.weights, self.metadata = dict(weights), dict(metadata)

    def __call__(
        self, observation: ndarray, generator: np.random.Generator | None = None
    ) -> Float32[ndarray, "b a"]:
        """Actions [b, a] for observations [b, o] in the environment's own units."""
        w = self.weights
        activation = ACTIVATIONS[self.metadata.get("activation", "relu")]
        hidden = observation.astype(np.float32)
        for i in range(1, hidden_layers(w) + 1):
            hidden = activation(hidden @ w[f"w{i}"].T + w[f"b{i}"])
        raw = hidden @ w["w_mu"].T + w["b_mu"]
        if generator is not None:
            noise = generator.standard_normal(raw.shape, dtype=np.float32)
            raw = raw + self._std(hidden) * noise
        low, high = w["action_low"], w["action_high"]
        return low + (np.tanh(raw) + 1) / 2 * (high - low)

    def _std(self, hidden: ndarray) -> ndarray:
        w = self.weights
        if "w_raw_std" in w:
            return np.logaddexp(hidden @ w["w_raw_std"].T + w["b_raw_std"], 0) + LEAST_STD
        return np.exp(np.clip(hidden @ w["w_log_std"].T + w["b_log_std"], LOG_STD_MIN, LOG_STD_MAX))


class PolicyAgent:
    """A policy that acts by its mean; a policy of random actions, by samples of the generator."""

    def __init__(self, policy: Policy, generator: np.random.Generator | None) -> None:
        self.policy, self.generator = policy, generator

    def act(self, obs: ndarray) -> ndarray:
        """The action [a] for an observation [o], in the environment's units."""
        return self.policy(obs[None], self.generator)[0]

    def reset(self) -> None:
        """Nothing: a policy has no memory."""


def shipped_policies() -> dict[tuple[str, str], dict[str, str]]:
    """Metadata of every shipped actor, by (env_id, policy name)."""
    found = {}
    for entry in files("mbrl_bilevel.agents").joinpath("policies").iterdir():
        if entry.name.endswith(".safetensors"):
            with as_file(entry) as path, safe_open(path, "numpy") as file:
                metadata = file.metadata()
            found[metadata["env_id"], metadata["policy"]] = {**metadata, "file": entry.name}
    return found


def load_policy(env_id: str, name: str) -> Policy:
    """The policy `name` for an environment: random, a shipped one, or expert, the best shipped one.

    Raises:
        InputError: nothing of that name is shipped for `env_id`; the sentence names what is.
    """
    if name == "random":
        space = make_env(env_id).action_space
        assert isinstance(space, spaces.Box)
        if not space.is_bounded():
            raise InputError(f"{env_id} has actions {space}; random actions need a bounded box")
        return RandomPolicy(space.low, space.high, env_id)
    shipped = {policy: meta for (env, policy), meta in shipped_policies().items() if env == env_id}
    if name == "expert" and shipped:
        name = max(shipped, key=lambda policy: float(shipped[policy]["return_deterministic"]))
    if name not in shipped:
        names = ", ".join(["random", *sorted(shipped), *(["expert"] if shipped else [])])
        raise InputError(f"no policy {name!r} is shipped for {env_id}; choose one of: {names}")
    with (
        as_file(files("mbrl_bilevel.agents").joinpath("policies", shipped[name]["file"])) as path,
        safe_open(path, "numpy") as file,
    ):
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return BehaviourPolicy(weights, shipped[name])
