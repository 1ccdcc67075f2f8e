"""The real physics in the place of a learned model: batches of transitions from any observations.

`LearnedVectorEnv` steps it as it steps a `DynamicsModel`. What a policy learns in it shows how much
of a failure is the model's: everything else stays as it is.
"""

import gymnasium
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.envs.simulated_wrappers import SimulatedWrappers
from mbrl_bilevel.envs.simulator import simulator_of
from mbrl_bilevel.protocols import NextStep


class SimulatedTransitions:
    """A `TransitionModel` of exact dynamics and rewards, in float32 on `device`.

    For HalfCheetah, Hopper, Walker2d, Swimmer and InvertedPendulum (gymnasium's v5 tasks) and
    Pendulum-v1, whose observations tell the state. Velocities that an observation clips (Hopper and
    Walker2d, at 10) are taken as they are shown. `env` is never stepped.

    Raises:
        InputError: another environment, or a wrapper that `SimulatedWrappers` does not know.
    """

    learn_reward = True  # it pays for its transitions as the environment does

    def __init__(self, env: gymnasium.Env, device: torch.device | str = "cpu") -> None:
        self._simulator, self._wrappers = simulator_of(env), SimulatedWrappers(env)
        shapes = env.observation_space.shape, env.action_space.shape
        (self.obs_dim,), (self.act_dim,) = ((shape or ())[-1:] for shape in shapes)
        self.env_id = None if env.spec is None else env.spec.id
        self.lowest = torch.full((self.obs_dim,), -torch.inf, device=device)
        self._simulator.starts(np.zeros((1, self.obs_dim)))  # refuses tasks that cannot start so

    def cast(self, values: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The same values in float32."""
        return values.to(self.lowest.dtype)

    def check_starts(self, obs: Float[Tensor, "*s o"]) -> None:
        """Nothing: the physics holds everywhere."""

    def sample(
        self,
        obs: Float[Tensor, "b o"],
        act: Float[Tensor, "b a"],
        generator: torch.Generator,
        *,
        check_starts: bool = True,
    ) -> NextStep:
        """The next step of every row, NaN where the simulation diverges; nothing is random."""
        starts = self._simulator.starts(obs.cpu().numpy())
        given = self._wrappers.actions(act.cpu().numpy()[:, None])
        shown, paid = self._simulator.simulate(given, starts)
        after, rewards = shown[:, 1], self._wrappers.rewards(paid)[:, 0]
        both = (torch.from_numpy(np.ascontiguousarray(part)) for part in (after, rewards))
        return NextStep(*(part.to(self.lowest) for part in both))
