"""The real simulation as the planner's model: exact observations and rewards, the upper bound.

`Simulator(env)` looks ahead from the present state of a live environment without touching it, so it
tells what a planner reaches with a perfect model.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from mbrl_bilevel.envs.mujoco_simulator import MujocoSimulator
from mbrl_bilevel.envs.pendulum_simulator import PendulumSimulator
from mbrl_bilevel.envs.readouts import READOUTS
from mbrl_bilevel.envs.simulated_wrappers import SimulatedWrappers
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.protocols import ActionPrior, Trajectories
from mbrl_bilevel.wording import counted


class Simulator:
    """A trajectory model of one particle that steps copies of live environments.

    For HalfCheetah, Hopper, Walker2d, Swimmer, Ant, Reacher, Pusher, InvertedPendulum and
    InvertedDoublePendulum (gymnasium's v5 tasks, with any arguments) and Pendulum-v1, in wrappers
    that `SimulatedWrappers` knows: actions and rewards are those of the outermost. Everything
    physical is read from the environment at each call and nothing is ever written to it, not even
    random numbers. Give the task `reward=None` for the exact rewards to count in a plan.

    Args:
        envs: a live environment, or one for each row of observations.
        threads: how many simulate candidates at once.
        prior: actions in each simulated state, by the given deviations, which take the place of
            actions.

    Raises:
        InputError: an environment or a wrapper that is not one of the above, fewer than 1 threads,
            or a prior where states are not simulated in batches (Ant, Pusher, Pendulum and others).
    """

    def __init__(
        self,
        envs: gymnasium.Env | Sequence[gymnasium.Env],
        *,
        threads: int = 1,
        prior: ActionPrior | None = None,
    ) -> None:
        if threads < 1:
            raise InputError(f"simulator threads {threads}: it must be at least 1")
        envs = [envs] if isinstance(envs, gymnasium.Env) else list(envs)
        self._simulators = [simulator_of(env, threads) for env in envs]
        self._wrappers = [SimulatedWrappers(env) for env in envs]
        self.prior = prior
        if prior is not None and not all(map(can_follow, self._simulators)):
            raise InputError(
                f"--prior in the simulation of {envs[0].spec}, which cannot follow a policy: plan "
                "there without a prior, or in a learned model"
            )

    @torch.no_grad()
    def trajectories(
        self,
        obs: Float[Tensor, "b o"],
        actions: Float[Tensor, "b n t a"],
        generator: torch.Generator,
    ) -> Trajectories:
        """What `env.step` would return for each sequence of actions, in the dtype of `obs`.

        The rewards are those of `env.step`, beyond a termination too; a step in which the
        simulation diverges and all after it are NaN. `generator` is not used: the simulation is
        deterministic.

        Raises:
            InputError: another number of observations than of environments, or observations that
                their environments do not show at present.
        """
        if not len(obs) == len(actions) == len(self._simulators):
            raise InputError(
                f"{counted(len(obs), 'observation')} for a simulator of "
                f"{counted(len(self._simulators), 'environment')}: give Simulator one environment "
                "for each row"
            )
        rows = []
        both = zip(self._simulators, self._wrappers, strict=True)
        for row, sequences, (simulator, wrappers) in zip(obs, actions, both, strict=True):
            _check_present(row.detach().cpu().numpy(), simulator.present())
            taken = sequences.detach().cpu().numpy()
            if self.prior is None:
                shown, paid = simulator.simulate(wrappers.actions(taken))
            else:
                assert isinstance(simulator, MujocoSimulator)
                shown, paid, taken = simulator.follow(
                    partial(_chosen, self.prior, obs), taken, wrappers.actions
                )
            rows.append((shown, wrappers.rewards(paid), taken))
        observations, rewards, acts = (
            torch.from_numpy(np.stack(parts)).to(obs).unsqueeze(0)
            for parts in zip(*rows, strict=True)
        )
        return Trajectories(observations, rewards, actions=None if self.prior is None else acts)


def _chosen(prior: ActionPrior, like: Tensor, shown: ndarray, deviation: ndarray) -> ndarray:
    """A prior's actions, for arrays."""
    obs, moved = (torch.from_numpy(part).to(like) for part in (shown, deviation))
    return prior(obs, moved).cpu().numpy()


def can_follow(simulator: "MujocoSimulator | PendulumSimulator") -> bool:
    """Whether it simulates whole batches a step at a time."""
    return isinstance(simulator, MujocoSimulator) and not simulator.readout.derived


def simulator_of(env: gymnasium.Env, threads: int = 1) -> "MujocoSimulator | PendulumSimulator":
    """What simulates the bare environment within wrappers.

    Raises:
        InputError: an environment that is not one of those of `Simulator`.
    """
    bare: Any = env.unwrapped
    if type(bare) is PendulumEnv:
        return PendulumSimulator(bare)
    if type(bare) not in READOUTS:
        name = bare.spec.id if bare.spec is not None else type(bare).__name__
        known = ", ".join(kind.__name__.removesuffix("Env") + "-v5" for kind in READOUTS)
        raise InputError(
            f"the simulator cannot look ahead in {name}; it knows {known} and Pendulum-v1: "
            "train a model instead"
        )
    return MujocoSimulator(bare, READOUTS[type(bare)], threads)


def _check_present(given: ndarray, present: ndarray) -> None:
    # float32 observations differ from the state's by their rounding
    if given.shape != present.shape or not np.allclose(given, present, rtol=1e-4, atol=1e-4):
        raise InputError(
            f"the observation {given.tolist()} is not what the simulator's environment shows at "
            f"present, {present.tolist()}: give Simulator the environment that is being stepped"
        )
