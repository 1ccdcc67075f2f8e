"""How to build an agent, small enough to send to another process."""

from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium
import numpy as np
import torch

from mbrl_bilevel.agents.behaviour import PolicyAgent, load_policy
from mbrl_bilevel.agents.build_mpc import mpc_in_model, mpc_in_simulator, policy_prior
from mbrl_bilevel.agents.model_check import check_model
from mbrl_bilevel.agents.mpc import MPC
from mbrl_bilevel.agents.planning_settings import MPCSettings
from mbrl_bilevel.agents.trained_policy import Prior, load_prior, trained_policy
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.simulator import Simulator
from mbrl_bilevel.envs.task_functions import check_termination
from mbrl_bilevel.envs.tasks import get_task, planned_task
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
            InputError: no model or prior there, one of another environment, a task without any
                reward, or what `mpc_in_model` refuses.
        """
        model = DynamicsModel.load(self.model, self.device)
        check_model(model, self.model, spec, env, other_env=self.other_env)
        task = planned_task(get_task(spec), model)
        generator = torch.Generator(self.device).manual_seed(seed)
        prior = _prior(self.settings, env, spec, self.device, self.other_env)
        return mpc_in_model(model, env, task, self.settings, generator, prior=prior)


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
            InputError: an environment that cannot be simulated, no prior there or one of another
                environment, or what `mpc_in_simulator` refuses.
        """
        # The simulator pays: a task's function of observations may only come near its rewards.
        task = replace(get_task(spec), reward=None)
        prior = _prior(self.settings, env, spec)
        near = policy_prior(self.settings, env, prior, torch.device("cpu"))
        model = Simulator(env, threads=self.threads, prior=near)
        assert env.observation_space.shape is not None
        check_termination(task, env.observation_space.shape[0])
        generator = torch.Generator().manual_seed(seed)
        return mpc_in_simulator(model, env, task, self.settings, generator, prior=prior)


@dataclass(frozen=True)
class PolicySpec:
    """One of the shipped behaviour policies."""

    policy: str

    def agent(self, env: gymnasium.Env, spec: str | EnvSpec, seed: int) -> PolicyAgent:
        """The agent; InputError where nothing of that name is shipped for the environment."""
        # Actors are evaluated by their mean; of uniform actions the mean would do nothing.
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
        policy = trained_policy(self.folder, env, spec, other_env=self.other_env)
        return PolicyAgent(policy, None)


AgentSpec = MPCSpec | SimulatorSpec | PolicySpec | TrainedPolicySpec


def _prior(
    settings: MPCSettings,
    env: gymnasium.Env,
    spec: str | EnvSpec,
    device: str = "cpu",
    other_env: bool = False,
) -> Prior | None:
    if settings.prior is None:
        return None
    return load_prior(settings.prior, env, spec, device, other_env=other_env)
