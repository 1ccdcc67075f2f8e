"""PETS (Chua et al. 2018): plan in a probabilistic ensemble, act, fit it again to all there is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy import ndarray
from torch import Tensor

from mbrl_bilevel.agents.mpc import MPC
from mbrl_bilevel.agents.real_env import RealEnv
from mbrl_bilevel.agents.world import World
from mbrl_bilevel.data.replay import Replay
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.training.checkpoint import load_checkpoint, save_checkpoint


class Pets:
    """Online model-predictive control whose model learns from what the control does.

    Args:
        plan: an MPC agent that looks ahead with the given model.
        start_steps: real steps by uniformly random actions, before the first fit.
        refit_every: real steps between fits of the model.
    """

    def __init__(
        self,
        env: RealEnv,
        world: World,
        replay: Replay,
        generator: torch.Generator,
        plan: Callable[[DynamicsModel], MPC],
        *,
        start_steps: int,
        refit_every: int,
    ) -> None:
        self.env, self.world, self.replay, self.generator = env, world, replay, generator
        self.plan, self.start_steps, self.refit_every = plan, start_steps, refit_every
        self.agent: MPC | None = None
        self.step = 0
        self.latest: dict[str, float] = {}

    @property
    def slowed(self) -> bool:
        return True  # its fits roll back by themselves

    def scale_learning_rate(self, factor: float) -> None:
        """Nothing: see `slowed`."""

    @property
    def steady(self) -> bool:
        """Not amid the plans of one model: what a planner remembers is in no checkpoint."""
        return self.step <= self.start_steps or self._refits_next

    @property
    def _refits_next(self) -> bool:
        since = self.step - self.start_steps
        return since >= 0 and since % self.refit_every == 0

    def train_step(self) -> None:
        """One real step, and the fit that is due before it."""
        if self._refits_next:
            self.latest |= self.world.learn(self.replay.in_order(), self.replay.added)
            self.agent = self.plan(self.world.model)
        elif self.agent is not None and self.env.begins:
            self.agent.reset()
        self.replay.add(self.env.step(self._action()).batch())
        self.step += 1

    def _action(self) -> ndarray:
        if self.agent is not None:
            return self.agent.act(self.env.observation)
        box = self.env.env.action_space
        assert isinstance(box, Box)
        unit = torch.rand(box.shape, generator=self.generator, device=self.generator.device)
        return box.low + unit.cpu().numpy() * (box.high - box.low)

    def metrics(self) -> dict[str, float]:
        """Returns of the episodes that ended since the last call, and the model's errors."""
        found = dict(self.latest)
        if self.env.finished:
            totals, lengths = np.array(self.env.finished).T
            found |= {"real/return": float(totals.mean()), "real/length": float(lengths.mean())}
            self.env.finished = []
        if self.agent is not None:
            found["time/planning_ms_per_step"] = self.agent.planning_ms_per_step
        return found

    def policy(self) -> None:
        """None: its episodes are the evaluation."""

    def save(self, folder: Path) -> None:
        """Writes checkpoint and model."""
        save_checkpoint(folder, self.state(), {"step": self.step})
        self.world.model.save(folder)

    def load(self, folder: Path) -> None:
        """Goes on from the folder's newest checkpoint; from the start where there is none."""
        loaded = load_checkpoint(folder, str(self.replay.rows.device))
        if loaded is not None:
            self.load_state(loaded[0])

    def state(self) -> dict[str, Tensor]:
        """Every tensor that decides how it goes on."""
        parts = {
            "env": self.env.state(),
            "replay": self.replay.state(),
            "world": self.world.state(),
            "latest": {k: torch.tensor(v, dtype=torch.float64) for k, v in self.latest.items()},
        }
        tensors = {f"{part}/{k}": v for part, state in parts.items() for k, v in state.items()}
        return tensors | {"step": torch.tensor(self.step), "generator": self.generator.get_state()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        def part(name: str) -> dict[str, Tensor]:
            prefix = f"{name}/"
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.env.load_state(part("env"))
        self.replay.load_state(part("replay"))
        self.world.load_state(part("world"))
        self.latest = {k: v.item() for k, v in part("latest").items()}
        self.step = int(tensors["step"])
        self.generator.set_state(tensors["generator"].cpu())
