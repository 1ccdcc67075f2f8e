"""How to build an agent and play an episode with it, small enough to send to another process."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.agents.behaviour import Policy, load_policy
from mbrl_bilevel.agents.caution import near_data
from mbrl_bilevel.agents.episode import Episode, run_episode
from mbrl_bilevel.agents.mpc import MPC
from mbrl_bilevel.agents.parallel import episode_seeds
from mbrl_bilevel.agents.planner_settings import SCORING, planner_class
from mbrl_bilevel.agents.policy_file import env_of_policy, load_policy_folder
from mbrl_bilevel.agents.terminal_value import rest_value
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.action_box import require_same_box
from mbrl_bilevel.envs.make import flat_names, make_env
from mbrl_bilevel.envs.rebuild import same_environment
from mbrl_bilevel.envs.simulator import Simulator
from mbrl_bilevel.envs.task_functions import check_termination
from mbrl_bilevel.envs.tasks import Task, get_task, planned_task
from mbrl_bilevel.envs.video import write_video
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.planning.score import Scoring
from mbrl_bilevel.protocols import Planner, TrajectoryModel


@dataclass(frozen=True)
class MPCRecipe:
    """MPC with the model in a folder, by a planner of `PLANNERS` and its `planner_settings`.

    As of every recipe, `agent(env, spec, seed)` takes all that is random from `seed`; `spec`, or an
    id, is what `env` was made of. With `other_env` it may be another than the model's.
    """

    model: Path
    planner: str = "icem"
    settings: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    other_env: bool = False

    def agent(self, env: gymnasium.Env, spec: str | EnvSpec, seed: int) -> MPC:
        """The agent.

        Raises:
            InputError: no model there, one of another environment, a task without any reward, or a
                planner setting outside its range.
        """
        model = DynamicsModel.load(self.model, self.device)
        check_model(model, self.model, spec, env, other_env=self.other_env)
        task = planned_task(get_task(spec), model)
        generator = torch.Generator(self.device).manual_seed(seed)
        return mpc_agent(model, env, task, self.planner, self.settings, generator)


def check_model(
    model: DynamicsModel,
    folder: Path,
    spec: str | EnvSpec,
    env: gymnasium.Env,
    *,
    other_env: bool = False,
) -> None:
    """Refuses the model in a folder where it cannot stand for an environment.

    Raises:
        InputError: one of another environment or box of actions (without `other_env`), of other
            sizes, or of dimensions in another order.
    """
    spec = EnvSpec(spec) if isinstance(spec, str) else spec
    trained = model.env_spec
    if not other_env and trained is not None and not same_environment(trained, spec):
        raise InputError(
            f"the model in {folder} was trained for {trained}, not for {spec}: choose a model "
            "that was trained for the latter, or train one"
        )
    assert env.observation_space.shape is not None
    assert isinstance(env.action_space, Box)
    sizes = (*env.observation_space.shape, *env.action_space.shape)
    if (model.obs_dim, model.act_dim) != sizes:
        raise InputError(
            f"the model in {folder} has {model.obs_dim} observation and {model.act_dim} "
            f"action dimensions, {spec} has {sizes[0]} and {sizes[1]}: "
            "choose the environment that it was trained for"
        )
    if not other_env:
        whose = f"model in {folder}"
        require_same_box(model.action_box, env.action_space, whose, str(spec))
    names, known = flat_names(env), model.observation_names
    if names is not None and names != known and sorted(names) == sorted(known):
        raise InputError(
            f"the model in {folder} has observations in the order {', '.join(known)}, {spec} in "
            f"the order {', '.join(names)}: collect data in it and train another"
        )


def mpc_agent(
    model: DynamicsModel,
    env: gymnasium.Env,
    task: Task,
    planner: str,
    settings: Mapping[str, Any],
    generator: torch.Generator,
) -> MPC:
    """MPC with a learned model on the generator's device; `env` tells the bounds of actions.

    Raises:
        InputError: a planner setting outside its range.
    """
    chosen = dict(settings)
    caution = chosen.pop("caution", 0.0)
    futures = Propagation(
        model,
        chosen.pop("propagation", "ts_inf"),
        particles=chosen.pop("particles", None),
        disagreement=chosen.get("disagreement", 0.0) > 0,
    )
    plans = _planner(planner, env, chosen, Propagation(model, "mean"), task, generator)
    seen = near_data(task, model, caution) if caution else task
    return MPC(futures, seen, plans, generator, generator.device)


@dataclass(frozen=True)
class SimulatorRecipe:
    """MPC with the environment's own simulation as the model: what perfect knowledge would reach.

    The exact rewards count, not the task's function of observations. `threads` simulate.
    """

    planner: str = "icem"
    settings: dict[str, Any] = field(default_factory=dict)
    threads: int = 1

    def agent(self, env: gymnasium.Env, spec: str | EnvSpec, seed: int) -> MPC:
        """The agent, which looks ahead from the state that `env` is in whenever it acts.

        Raises:
            InputError: an environment that cannot be simulated, or a planner setting outside its
                range.
        """
        task = replace(get_task(spec), reward=None)
        model = Simulator(env, threads=self.threads)
        assert env.observation_space.shape is not None
        check_termination(task, env.observation_space.shape[0])
        generator = torch.Generator().manual_seed(seed)
        planner = _planner(self.planner, env, dict(self.settings), model, task, generator)
        return MPC(model, task, planner, generator)


def _planner(
    name: str,
    env: gymnasium.Env,
    settings: dict[str, Any],
    model: TrajectoryModel,
    task: Task,
    generator: torch.Generator,
) -> Planner:
    """A planner within the bounds of the environment's actions; `env` is reset on the way."""
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    scoring = Scoring(**{key: settings.pop(key) for key in SCORING if key in settings})
    if settings.pop("terminal_value", "none") == "rest":
        scoring = replace(scoring, terminal_value=rest_value(env, model, task, generator))
    return planner_class(name)(space.low, space.high, scoring=scoring, **settings)


class PolicyAgent:
    """A policy that acts by its mean; a policy of random actions, by samples of the generator."""

    def __init__(self, policy: Policy, generator: np.random.Generator | None) -> None:
        self.policy, self.generator = policy, generator

    def act(self, obs: np.ndarray) -> np.ndarray:
        return self.policy(obs[None], self.generator)[0]

    def reset(self) -> None:
        """Nothing: a policy has no memory."""


@dataclass(frozen=True)
class PolicyRecipe:
    """One of the shipped behaviour policies."""

    policy: str

    def agent(self, env: gymnasium.Env, spec: str | EnvSpec, seed: int) -> PolicyAgent:
        """The agent; InputError where nothing of that name is shipped for the environment."""
        generator = np.random.default_rng(seed) if self.policy == "random" else None
        env_id = spec if isinstance(spec, str) else spec.id
        return PolicyAgent(load_policy(env_id, self.policy), generator)


@dataclass(frozen=True)
class TrainedRecipe:
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


Recipe = MPCRecipe | SimulatorRecipe | PolicyRecipe | TrainedRecipe


@dataclass(frozen=True)
class PlayEpisode:
    """Episode `index` of an evaluation, the same wherever and whenever it is played.

    `video` takes the first episode's frames.
    """

    recipe: Recipe
    env: str | EnvSpec
    seed: int
    max_steps: int | None = None
    video: Path | None = None

    def __call__(self, index: int, on_step: Callable[[int, float], None] | None = None) -> Episode:
        filmed = self.video if index == 0 else None
        env_seed, agent_seed = episode_seeds(self.seed, index)
        with ExitStack() as stack:
            mode = {"render_mode": "rgb_array"} if filmed is not None else {}
            env = make_env(self.env, **mode)
            stack.callback(env.close)
            agent = self.recipe.agent(env, self.env, agent_seed)
            on_frame = None
            if filmed is not None:
                fps = env.metadata.get("render_fps", 30)
                on_frame = stack.enter_context(write_video(filmed, fps))
            episode = run_episode(
                agent,
                env,
                env_seed,
                name=f"episode {index}",
                max_steps=self.max_steps,
                on_step=on_step,
                on_frame=on_frame,
            )
        planner = getattr(agent, "planner", None)  # a policy has none
        return replace(episode, non_finite_sequences=getattr(planner, "non_finite_sequences", 0))
