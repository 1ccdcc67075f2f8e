"""How to build an agent, small enough to send to another process."""

from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium
import numpy as np
import torch

from mbrl_bilevel.agents.behaviour import PolicyAgent, load_policy
from mbrl_bilevel.agents.build_mpc import mpc_in_model, mpc_in_simulator
from mbrl_bilevel.agents.model_check import check_model
from mbrl_bilevel.agents.mpc import MPC
from mbrl_bilevel.agents.planning_settings import MPCSettings
from mbrl_bilevel.agents.policy_file import env_of_policy, load_policy_folder
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.rebuild import same_environment
from mbrl_bilevel.envs.simulator import Simulator
from mbrl_bilevel.envs.task_functions import check_termination
from mbrl_bilevel.envs.tasks import get_task, planned_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel


@dataclass(frozen=True)
class MPCSpec:
    """MPC with the learned model in a folder.

    As of every spec, `agent(env, spec, seed)` takes all that is random from `seed`; `spec`, or an
    id, is what `env` was made of. With `other_env` it may be another than the model's.
    """

    model: Path
    settings: MPCSettings = MPCSettings()
    device: str = "cpu"
    other_env: bool = False

    def agent(self, env: gymnasium.Env, spec: str | EnvSpec, seed: int) -> MPC:
        """The agent.

        Raises:
            InputError: no model there, one of another environment, a task without any reward, or
                what `mpc_in_model` refuses.
        """
        model = DynamicsModel.load(self.model, self.device)
        check_model(model, self.model, spec, env, other_env=self.other_env)
        task = planned_task(get_task(spec), model)
        generator = torch.Generator(self.device).manual_seed(seed)
        return mpc_in_model(model, env, task, self.settings, generator)


@dataclass(frozen=True)
class SimulatorSpec:
    """MPC with the environment's own simulation as the model: what perfect knowledge would reach.

    The exact rewards count, not the task's function of observations. `threads` simulate.
    """

    settings: MPCSettings = MPCSettings(model=None)
    threads: int = 1

    def agent(self, env: gymnasium.Env, spec: str | EnvSpec, seed: int) -> MPC:
        """The agent, which looks ahead from the state that `env` is in whenever it acts.

        Raises:
            InputError: an environment that cannot be simulated, or what `mpc_in_simulator` refuses.
        """
        task = replace(get_task(spec), reward=None)
        model = Simulator(env, threads=self.threads)
        assert env.observation_space.shape is not None
        check_termination(task, env.observation_space.shape[0])
        generator = torch.Generator().manual_seed(seed)
        return mpc_in_simulator(model, env, task, self.settings, generator)


@dataclass(frozen=True)
class PolicySpec:
    """One of the shipped behaviour policies."""

    policy: str

    def agent(self, env: gymnasium.Env, spec: str | EnvSpec, seed: int) -> PolicyAgent:
        """The agent; InputError where nothing of that name is shipped for the environment."""
        generator = np.random.default_rng(seed) if self.policy == "random" else None
        env_id = spec if isinstance(spec, str) else spec.id
        return PolicyAgent(load_policy(env_id, self.policy), generator)


@dataclass(frozen=True)
class TrainedPolicySpec:
    """The policy that a run of `train-agent` left in a folder, acting by its mean."""

    folder: Path
    other_env: bool = False

    def agent(self, env: gymnasium.Env, spec: str | EnvSpec, seed: int) -> PolicyAgent:
        """The agent.

        Raises:
            InputError: no policy there, or one of another environment.
        """
        policy = load_policy_folder(self.folder)
        trained = env_of_policy(policy, self.folder)
        spec = EnvSpec(spec) if isinstance(spec, str) else spec
        same = self.other_env or same_environment(trained, spec)
        sizes = len(policy.weights["b_mu"]), policy.weights["w1"].shape[1]
        assert env.observation_space.shape is not None
        assert env.action_space.shape is not None
        if not same or sizes != (*env.action_space.shape, *env.observation_space.shape):
            raise InputError(
                f"the policy in {self.folder} was trained for {trained} ({sizes[1]} observation "
                f"and {sizes[0]} action dimensions), not for {spec}: evaluate it there, or "
                "train another"
            )
        return PolicyAgent(policy, None)


AgentSpec = MPCSpec | SimulatorSpec | PolicySpec | TrainedPolicySpec
