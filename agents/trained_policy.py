"""Trained policies by the folder of their run, for the environment that they act in."""

from dataclasses import dataclass
from pathlib import Path

import gymnasium
import torch

from mbrl_bilevel.agents.behaviour import BehaviourPolicy, load_policy
from mbrl_bilevel.agents.critic_file import CriticValue, load_critic
from mbrl_bilevel.agents.policy_file import env_of_policy, load_policy_folder
from mbrl_bilevel.agents.policy_mean import PolicyMean
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.rebuild import same_environment
from mbrl_bilevel.errors import InputError


def trained_policy(
    folder: Path, env: gymnasium.Env, spec: str | EnvSpec, *, other_env: bool = False
) -> BehaviourPolicy:
    """The policy that a run of `train-agent` left in a folder; `spec` is what `env` was made of.

    Raises:
        InputError: no policy there, or one of another environment (without `other_env`) or sizes.
    """
    policy = load_policy_folder(folder)
    trained = env_of_policy(policy, folder)
    spec = EnvSpec(spec) if isinstance(spec, str) else spec
    # By the whole description: wrappers and arguments change what an observation means.
    same = other_env or same_environment(trained, spec)
    sizes = len(policy.weights["b_mu"]), policy.weights["w1"].shape[1]
    assert env.observation_space.shape is not None
    assert env.action_space.shape is not None
    if not same or sizes != (*env.action_space.shape, *env.observation_space.shape):
        raise InputError(
            f"the policy in {folder} was trained for {trained} ({sizes[1]} observation "
            f"and {sizes[0]} action dimensions), not for {spec}: evaluate it there, or "
            "train another"
        )
    return policy


@dataclass(frozen=True)
class Prior:
    """The policy that plans are drawn around, and the folder of its run unless it is shipped."""

    name: str
    policy: PolicyMean
    folder: Path | None

    def critic(self, discount: float) -> CriticValue:
        """The value of the policy, by the critics of its run.

        Raises:
            InputError: it has none, or they discount otherwise than by `discount`.
        """
        if self.folder is None:
            raise InputError(
                f"--terminal-value critic: the shipped policy {self.name} has no critics; name by "
                "--prior a run of `mbrl-bilevel train-agent`, or choose none"
            )
        critic = load_critic(self.folder, self.policy)
        # A value of another discount is of another size: the plan would end in a wrong currency.
        if critic.discount != discount:
            raise InputError(
                f"--discount {discount}: the critics in {self.folder} discount by "
                f"{critic.discount}; plan with --discount {critic.discount}"
            )
        return critic


def load_prior(
    name: str,
    env: gymnasium.Env,
    spec: str | EnvSpec,
    device: torch.device | str = "cpu",
    *,
    other_env: bool = False,
    flag: str = "--prior",
) -> Prior:
    """A prior by the folder of a run of `train-agent`, or by the name of a shipped policy.

    `flag` is what names it in messages.

    Raises:
        InputError: neither is there, or it is random, or of another environment or sizes.
    """
    if Path(name).is_dir():
        folder = Path(name)
        policy = trained_policy(folder, env, spec, other_env=other_env)
        return Prior(name, PolicyMean(policy, device), folder)
    env_id = spec if isinstance(spec, str) else spec.id
    try:
        shipped = load_policy(env_id, name)
    except InputError as error:
        raise InputError(f"{flag} {name} is no run folder of train-agent, and {error}") from None
    # `load_policy` gives uniform actions the name of a policy, which collecting data needs.
    if not isinstance(shipped, BehaviourPolicy):
        raise InputError(
            f"{flag} {name}: random actions have no mean to follow; name a run folder of "
            "train-agent or another policy"
        )
    sizes = shipped.weights["w1"].shape[1], len(shipped.weights["b_mu"])
    assert env.observation_space.shape is not None
    assert env.action_space.shape is not None
    if sizes != (*env.observation_space.shape, *env.action_space.shape):
        raise InputError(
            f"{flag} {name} is a policy of {env_id} with {sizes[0]} observation and {sizes[1]} "
            f"action dimensions, not of {spec}: train one there"
        )
    return Prior(name, PolicyMean(shipped, device), None)
