"""Dyna (Sutton 1990) with a soft actor-critic: MBPO online, MOPO offline, SAC without a model.

Offline the policy begins as, and stays near, what the data do: within the updates of an afternoon
the penalty alone let it forget them. `real_ratio=0` leaves the second out.

MBPO (Janner et al. 2019, algorithm 2):          MOPO (Yu et al. 2020, algorithm 1):
    every few hundred real steps                     once
        fit the model to all real data                   fit the model to the data set
                                                         teach the policy to do as the data do
    every few real steps                             again and again
        branch rollouts from real states                 branch rollouts, reward less penalty
        update the policy on them, often                 update the policy on them

Rollouts are made more often than models: critics know what an action is worth only where one like
it was taken, and a policy that learned from older rollouts has moved on from theirs.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mbrl_bilevel.agents.captured import CapturedUpdate
from mbrl_bilevel.agents.multi_step import multi_step
from mbrl_bilevel.agents.policy_file import save_policy
from mbrl_bilevel.agents.real_env import RealEnv
from mbrl_bilevel.agents.sac import SAC
from mbrl_bilevel.agents.world import World
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.training.checkpoint import load_checkpoint, save_checkpoint
from mbrl_bilevel.training.divergence import TrainingDiverged

REMEDY = "lower the learning rate, the updates per step or the rollout length"
RECENT = 1_000  # real states, the latest, of which a share of rollouts begins
MANY = 0.1  # of the updates since the last metrics were skipped: not finite
DIVERGED = 10.0  # times the largest value that rewards and entropy could add up to

Update = Callable[..., dict[str, Tensor]]


class Dyna:
    """A policy that learns from real and imagined transitions: everything that a checkpoint holds.

    Args:
        env: where real steps are taken; None offline, where `replay` holds the data set and a step
            is one policy update.
        world: the model; None for plain SAC.
        start_steps: real steps by uniformly random actions, before anything is learned.
        imitate_steps: offline, steps in which the policy learns to do as the data do, and the
            critics what that is worth, before either sees anything imagined.
        refit_every: online, steps between fits of the model.
        imagine_every: steps between rounds of rollouts.
        updates_per_step: policy updates per real step.
        real_ratio: share of each batch that comes from real data.
        recent_starts: share of the rollouts that begin in one of the latest `RECENT` real states,
            the others in any: what the policy does now is otherwise a small part of what is held,
            and its mistakes too few for critics to learn from.
        multi_step: whether critics learn from each imagined step by all that follow in its rollout.
        termination_cost: reward units taken off a step that ends the episode, real or imagined, by
            termination (Thomas et al. 2021, SMBPO); returns are reported without it. To a
            discounted value what falls early and fast is otherwise worth as much as what goes on.
        reward_scale: of everything that is learned from; critics are far from large values for long
            (Haarnoja et al. 2018a).
        imagined_rounds: how many rounds of rollouts are learned from, the latest; older ones come
            from models and policies that have been left behind.
        metadata: stands in the policy's file; names env_id and algorithm.
    """

    def __init__(
        self,
        sac: SAC,
        replay: Replay,
        generator: torch.Generator,
        *,
        env: RealEnv | None = None,
        world: World | None = None,
        start_steps: int = 0,
        imitate_steps: int = 0,
        refit_every: int = 250,
        imagine_every: int = 25,
        updates_per_step: int = 1,
        batch_size: int = 256,
        real_ratio: float = 1.0,
        recent_starts: float = 0.0,
        multi_step: bool = False,
        termination_cost: float = 0.0,
        reward_scale: float = 1.0,
        imagined_rounds: int = 4,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.metadata = dict(metadata or {})
        self.sac, self.replay, self.generator = sac, replay, generator
        self.captured = CapturedUpdate(sac) if replay.rows.is_cuda else None
        self.env, self.world = env, world
        self.start_steps = start_steps if env is not None else imitate_steps
        self.refit_every, self.imagine_every = refit_every, imagine_every
        self.updates_per_step, self.batch_size = updates_per_step, batch_size
        self.imagined_rounds = imagined_rounds
        self.recent_starts, self.multi_step = recent_starts, multi_step
        self.termination_cost, self.reward_scale = termination_cost, reward_scale
        self.real = batch_size if world is None else round(real_ratio * batch_size)
        self.largest_reward = torch.zeros((), device=replay.rows.device)  # of imagined ones
        self.imagined: Replay | None = None
        if world is not None:
            capacity = imagined_rounds * world.rollouts * world.length.longest
            sizes = replay.obs_dim, replay.act_dim
            self.imagined = Replay(capacity, *sizes, device=replay.rows.device)
        self.step = 0
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.latest: dict[str, float] = {}

    def train_step(self) -> None:
        """One real step online, one policy update offline, and what is due with it."""
        learning = self.step >= self.start_steps
        if self.world is not None and learning:
            if self.env is not None and self._since_start % self.refit_every == 0:
                self.latest |= self.world.learn(self.replay.in_order(), self.replay.added)
            if self._since_start % self.imagine_every == 0:
                self._imagine(self.world)
        if self.env is not None:
            self.replay.add(self.env.step(self._action(self.env, learning)).batch())
        if learning:
            for _ in range(self.updates_per_step):
                self._update()
        elif self.env is None:
            self._imitate()
        self.step += 1

    @property
    def _since_start(self) -> int:
        return self.step - self.start_steps

    def _imagine(self, world: World) -> None:
        assert self.imagined is not None
        batch, metrics = world.imagine(self._starts(world.rollouts), self._sample, self.step)
        self.largest_reward = torch.maximum(self.largest_reward, batch.reward.abs().amax())
        batch = self._rewarded(batch)
        if self.multi_step:
            batch = multi_step(batch, world.rollouts, self.sac.discount)
        self.imagined.add(batch)
        self._add({f"rollout/{k}": v for k, v in metrics.items()})

    def _starts(self, count: int) -> Tensor:
        """Real states to branch from, [count, o]."""
        states = self.replay.in_order().observation
        chance, share = torch.rand(2, count, generator=self.generator, device=states.device)
        span = torch.where(chance < self.recent_starts, min(RECENT, len(states)), len(states))
        back = (share * span).long()  # steps before the latest
        return states[len(states) - 1 - back]

    @property
    def _round(self) -> int:
        """Transitions of a round of rollouts, by the length that is due now."""
        return 0 if self.world is None else self.world.rollouts * self.world.length(self.step)

    def _update(self) -> None:
        parts = []
        if self.real:
            parts.append(self._rewarded(self.replay.sample(self.real, self.generator)))
        if self.imagined is not None and self.batch_size > self.real:
            count, newest = self.batch_size - self.real, self.imagined_rounds * self._round
            parts.append(self.imagined.sample(count, self.generator, newest=newest))
        batch = Batch(*(torch.cat(c) for c in zip(*parts, strict=True)))
        behaviour = parts[0] if self.env is None and self.real else None
        metrics = self._learn(batch, behaviour=behaviour)
        self._add({f"policy/{k}": v for k, v in metrics.items()})

    def _imitate(self) -> None:
        batch = self._rewarded(self.replay.sample(self.batch_size, self.generator))
        metrics = self._learn(batch, imitate=True)
        self._add({f"policy/{k}": v for k, v in metrics.items()})

    def _rewarded(self, batch: Batch) -> Batch:
        reward = batch.reward - self.termination_cost * batch.terminated
        return batch._replace(reward=self.reward_scale * reward)

    @property
    def _learn(self) -> Update:
        return self.captured or self.sac.update

    @torch.no_grad()
    def _sample(self, obs: Tensor) -> Tensor:
        return self.sac.actor.sample(obs, self.generator)[0]

    def _action(self, env: RealEnv, learned: bool) -> np.ndarray:
        actor, device = self.sac.actor, self.replay.rows.device
        if not learned:
            unit = torch.rand(actor.middle.shape, generator=self.generator, device=device)
            action = actor.middle + (2 * unit - 1) * actor.half_width
        else:
            row = torch.as_tensor(env.observation, dtype=torch.float32, device=device)
            action = self._sample(row.unsqueeze(0))[0]
        return action.cpu().numpy()

    def _add(self, metrics: dict[str, Tensor]) -> None:
        """Sums on the device: reading a figure out at every update would wait for it.

        Of `largest_...` metrics the largest is kept.
        """
        for name, value in metrics.items():
            old = self.sums.get(name, torch.zeros((), dtype=torch.float64, device=value.device))
            self.sums[name] = torch.maximum(old, value) if "largest" in name else old + value
            self.counts[name] = 1 if "largest" in name else self.counts.get(name, 0) + 1

    def metrics(self) -> dict[str, float]:
        """Averages since the last call; waits for the device once.

        Raises:
            TrainingDiverged: a critic beyond what rewards could add up to, or not finite.
        """
        found = {name: total.item() / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        found |= self.latest
        if self.env is not None and self.env.finished:
            totals, lengths = np.array(self.env.finished).T
            found |= {"real/return": totals.mean(), "real/length": lengths.mean()}
            self.env.finished = []
        self._check(found)
        return {k: float(v) for k, v in found.items()}

    def _check(self, metrics: dict[str, float]) -> None:
        largest, temperature = (
            metrics.get(f"policy/{name}") for name in ("largest_q", "temperature")
        )
        if largest is None or temperature is None:
            return
        real = self.replay.in_order().reward.abs().max()
        reward = torch.maximum(real, self.largest_reward).item()
        a_step = self.reward_scale * reward + temperature * self.replay.act_dim
        end = self.reward_scale * self.termination_cost
        bound = DIVERGED * (a_step / (1 - self.sac.discount) + end)
        if metrics["policy/skipped_steps"] >= MANY:
            raise TrainingDiverged(
                f"{metrics['policy/skipped_steps']:.0%} of the updates before step {self.step} "
                f"were not finite; {REMEDY}, or look for outliers in the data"
            )
        values = [v for k, v in metrics.items() if k.startswith("policy/")]
        if largest > bound or not all(map(math.isfinite, values)):
            raise TrainingDiverged(
                f"the critic diverged by step {self.step}: values up to {largest:.3g} where the "
                f"rewards seen add up to {bound / DIVERGED:.3g} at most; {REMEDY}"
            )

    @property
    def steady(self) -> bool:
        return True

    @property
    def slowed(self) -> bool:
        return self.sac.slowed

    def scale_learning_rate(self, factor: float) -> None:
        """Of the policy's learning."""
        self.sac.scale_learning_rate(factor)
        self._forget_captured()

    def _forget_captured(self) -> None:
        if self.captured is not None:
            self.captured.forget()

    def policy(self) -> dict[str, np.ndarray]:
        return self.sac.average.weights()

    def save(self, folder: Path) -> None:
        """Writes checkpoint, policy and model.

        Raises:
            TrainingDiverged: a number in them would not be finite; what stood there stays.
        """
        state = self.state()
        if not all(v.isfinite().all() for v in state.values() if v.is_floating_point()):
            raise TrainingDiverged(f"a state at step {self.step} is not finite; {REMEDY}")
        save_checkpoint(folder, state, {"step": self.step})
        save_policy(folder, self.sac.average.weights(), self.metadata)
        if self.world is not None:
            self.world.model.save(folder)

    def load(self, folder: Path) -> None:
        """Goes on from the folder's newest checkpoint; from the start where there is none."""
        loaded = load_checkpoint(folder, str(self.replay.rows.device))
        if loaded is not None:
            self.load_state(loaded[0])

    def state(self) -> dict[str, Tensor]:
        """Every tensor that decides how training goes on."""
        parts: dict[str, dict[str, Tensor]] = {
            "sac": self.sac.state(),
            "sums": self.sums,
            "counts": {k: torch.tensor(v) for k, v in self.counts.items()},
            "latest": {k: torch.tensor(v, dtype=torch.float64) for k, v in self.latest.items()},
        }
        if self.env is not None:
            parts |= {"env": self.env.state(), "replay": self.replay.state()}
        if self.world is not None and self.imagined is not None:
            parts |= {"world": self.world.state(), "imagined": self.imagined.state()}
        tensors = {f"{part}/{k}": v for part, state in parts.items() for k, v in state.items()}
        return tensors | {
            "largest_reward": self.largest_reward,
            "step": torch.tensor(self.step),
            "generator": self.generator.get_state(),
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        def part(name: str) -> dict[str, Tensor]:
            prefix = f"{name}/"
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.sac.load_state(part("sac"))
        self._forget_captured()
        self.sums = part("sums")
        self.counts = {k: int(v) for k, v in part("counts").items()}
        self.latest = {k: v.item() for k, v in part("latest").items()}
        if self.env is not None:
            self.env.load_state(part("env"))
            self.replay.load_state(part("replay"))
        if self.world is not None and self.imagined is not None:
            self.world.load_state(part("world"))
            self.imagined.load_state(part("imagined"))
        self.largest_reward = tensors["largest_reward"].clone()
        self.step = int(tensors["step"])
        self.generator.set_state(tensors["generator"].cpu())
