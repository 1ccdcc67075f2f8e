"""Updates of actor and critics by rollouts in a model, over two horizons (Kubo et al. 2025).

every detached_every updates
    256 real states, 20 steps of the policy in the model, detached; every state that has not
    terminated goes into the buffer B
s_0 ~ B; for t = 0 ... h-1: a_t ~ pi(s_t); s_{t+1}, r_t ~ model, gradients kept
R = sum_{t<h} gamma^t m_t (r_t - alpha log pi_t) + gamma^h m_h (Q(s_h, a_h) - alpha log pi_h),
    m_t = 1 until the rollout has terminated, 0 from there on
critics   Q(s_0, a_0) towards R without its first entropy, Q = min of 2 target critics
actor     up the gradient of the mean of R, Q = mean of the critics
alpha     J(alpha) = -alpha mean (log pi(a_0 | s_0) + target entropy)
"""

import copy
import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.agents.metric_sums import MetricSums
from mbrl_bilevel.agents.model_return import Rollout, model_return
from mbrl_bilevel.agents.model_step import ModelStep, model_step
from mbrl_bilevel.agents.scaled_critics import ScaledCritics
from mbrl_bilevel.agents.setting_groups import TwoHorizonSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.agents.squashed_actor import SquashedActor
from mbrl_bilevel.data.standardizer import Standardizer
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.nested_state import State, load_moments, moments, nest, part
from mbrl_bilevel.protocols import Task

HIDDEN_LAYERS = 3
CLIP_NORM = 100.0  # of the actor's gradient, in units of the critics' width

Starts = Callable[[int], Float[Tensor, "b o"]]


class TwoHorizonUpdates:
    """Actor, critics, temperature and the buffer of imagined states.

    Args:
        task: as the model's rollouts see it (`planned_task`): it pays where the model does not.
        generator: on the training device; decides everything random.
    """

    def __init__(
        self,
        settings: TwoHorizonSettings,
        model: DynamicsModel,
        task: Task,
        spaces: Spaces,
        generator: torch.Generator,
    ) -> None:
        self.settings, self.model, self.task, self.generator = settings, model, task, generator
        hidden = (settings.policy_hidden,) * HIDDEN_LAYERS
        low, high = spaces.action_bounds(generator.device)
        self.standardizer = Standardizer(spaces.obs_dim).to(generator.device)
        with torch.device(generator.device):
            self.actor = SquashedActor(spaces.obs_dim, low, high, hidden, generator)
            self.critics = ScaledCritics(
                spaces.obs_dim + spaces.act_dim,
                hidden,
                generator,
                critics=settings.critics,
                dropout=settings.critic_dropout,
                target_rate=settings.target_rate,
            )
            self.log_temperature = nn.Parameter(torch.tensor(math.log(settings.temperature)))
            capacity = settings.detached_rounds * settings.detached_horizon
            self.states = torch.zeros(capacity * settings.policy_batch_size, spaces.obs_dim)
        target = settings.target_entropy
        self.target_entropy = -float(spaces.act_dim) if target is None else target
        self.learning_rate = settings.policy_learning_rate
        self.temperature_optimizer = self._adam([self.log_temperature])
        self.sums = MetricSums("policy")
        self.restart()

    def _adam(self, parameters: Iterable[Tensor]) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, self.learning_rate, fused=True)

    def restart(self) -> None:
        """Empties the buffer and restarts Adam, as of a model that was fitted anew."""
        self.stored, self.place, self.updates = 0, 0, 0
        # A copy: gradients pass through it to the policy, and the fits' own must not be switched.
        elites = self.model.network.select(self.model.elites)
        self.network = copy.deepcopy(elites).requires_grad_(False)
        self.actor_optimizer = self._adam(self.actor.parameters())
        self.critic_optimizer = self._adam(self.critics.critic.parameters())

    @property
    def alpha(self) -> Float[Tensor, ""]:
        """The entropy temperature, without a gradient."""
        return self.log_temperature.detach().exp()

    @property
    def discount(self) -> float:
        return self.settings.discount

    @property
    def termination_cost(self) -> float:
        return 0.0

    @torch.no_grad()
    def values(self, obs: Float[Tensor, "b o"], act: Float[Tensor, "b a"]) -> Float[Tensor, "b"]:
        """The mean of all critics."""
        device, actor = self.generator.device, self.actor
        s = self.standardizer.standardize(obs.to(device))
        unit = (act.to(device) - actor.action_bias) / actor.action_scale
        return self.critics.value(torch.cat([s, unit], -1))

    def _step(self, obs: Float[Tensor, "b o"], unit: Float[Tensor, "b a"]) -> ModelStep:
        act = self.actor.scaled(unit)
        return model_step(self.model, self.network, self.task, obs, act, self.generator)

    @torch.no_grad()
    def detached_rollout(self, obs: Float[Tensor, "b o"]) -> None:
        """Adds the policy's imagined states from `obs` on to the buffer, and moves Q's bounds."""
        alive = torch.ones(len(obs), dtype=torch.bool, device=obs.device)
        kept, soft_rewards = [], []
        for _ in range(self.settings.detached_horizon):
            kept.append(obs[alive])
            unit, log_prob = self.actor.sample(self.standardizer.standardize(obs), self.generator)
            step = self._step(obs, unit)
            soft_rewards.append((step.reward - self.alpha * log_prob)[alive])
            obs = step.observation
            alive = alive & (step.alive > 0) & obs.isfinite().all(-1)
        # A step that terminates still counts: its reward is what the policy got for it.
        found = torch.cat(soft_rewards)
        self.critics.move_bounds(found[found.isfinite()], self.settings.discount)
        rows = torch.cat(kept)
        place = (self.place + torch.arange(len(rows), device=rows.device)) % len(self.states)
        self.states[place] = rows
        self.place = (self.place + len(rows)) % len(self.states)
        self.stored = min(self.stored + len(rows), len(self.states))
        self.sums.add({"soft_reward": found.mean(), "alive_detached": alive.float().mean()})

    def differentiated_rollout(self) -> Rollout:
        """A short rollout from states of the buffer, with gradients."""
        count, device = self.settings.policy_batch_size, self.states.device
        drawn = torch.randint(self.stored, (count,), generator=self.generator, device=device)
        start, alive = self.states[drawn], [torch.ones(count, device=device)]
        inputs, rewards, log_probs, actions, obs = [], [], [], [], start
        for t in range(self.settings.horizon + 1):
            s = self.standardizer.standardize(obs)
            unit, log_prob = self.actor.sample(s, self.generator)
            inputs.append(torch.cat([s, unit], -1))
            log_probs.append(log_prob)
            if t == self.settings.horizon:
                break
            actions.append(unit)
            step = self._step(obs, unit)
            rewards.append(step.reward)
            alive.append(alive[-1] * step.alive)
            # A gradient of NaN times 0 is NaN: rows that have terminated go on from their start.
            obs = torch.where(alive[-1].unsqueeze(-1) > 0, step.observation, start)
        return Rollout(
            inputs[0],
            inputs[-1],
            torch.stack(rewards),
            torch.stack(log_probs),
            torch.stack(alive),
            actions,
        )

    def update(self, starts: Starts, *, critics_only: bool = False) -> None:
        """One update; `starts(n)` draws n real states for a detached rollout."""
        if self.updates % self.settings.detached_every == 0:
            self.detached_rollout(starts(self.settings.policy_batch_size))
        self.updates += 1
        if critics_only:
            with torch.no_grad():
                rollout = self.differentiated_rollout()
        else:
            rollout = self.differentiated_rollout()
            self._update_actor(rollout)
            self._update_temperature(rollout.log_probs[0].detach())
        self._update_critics(rollout)

    def _update_actor(self, rollout: Rollout) -> None:
        for action in rollout.actions:
            action.retain_grad()
        # The mean of all critics: the gradient of a minimum would be one critic's own error.
        value = self.critics.value(rollout.last)
        gain = model_return(
            rollout, value, self.alpha, self.settings.discount, first_entropy=True
        ).mean()
        self.actor_optimizer.zero_grad(set_to_none=True)
        # In units of the width: gradients keep their size where rewards are large.
        (-gain / self.critics.width).backward()
        finite = zero_unless_finite(self.actor.parameters())
        norm = nn.utils.clip_grad_norm_(self.actor.parameters(), CLIP_NORM)
        self.actor_optimizer.step()
        by_step = {
            f"action_gradient_{t}": len(action) * action.grad.norm(dim=-1).mean()
            for t, action in enumerate(rollout.actions)
            if action.grad is not None
        }
        self.sums.add(
            {
                "return": gain.detach(),
                "gradient_norm": norm,
                "skipped_steps": 1.0 - finite.to(norm.dtype),
                "alive_differentiated": rollout.alive[-1].mean(),
                **by_step,
            }
        )

    def _update_temperature(self, log_prob: Float[Tensor, "b"]) -> None:
        loss = -self.log_temperature * (log_prob.mean() + self.target_entropy)
        self.temperature_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        zero_unless_finite([self.log_temperature])
        self.temperature_optimizer.step()
        self.sums.add({"entropy": -log_prob.mean(), "temperature": self.alpha})

    def _update_critics(self, rollout: Rollout) -> None:
        with torch.no_grad():
            value = self.critics.target_value(rollout.last)
            y = model_return(
                rollout, value, self.alpha, self.settings.discount, first_entropy=False
            )
        loss = self.critics.loss(rollout.first.detach(), y)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        zero_unless_finite(self.critics.critic.parameters())
        self.critic_optimizer.step()
        self.critics.update_targets()
        self.sums.add(
            {
                "critic_loss": loss.detach(),
                "q": y.mean(),
                "q_low": self.critics.low,
                "q_high": self.critics.high,
            }
        )

    def optimizers(self) -> dict[str, torch.optim.Adam]:
        return {
            "actor": self.actor_optimizer,
            "critics": self.critic_optimizer,
            "temperature": self.temperature_optimizer,
        }

    @property
    def learning_rate_scaled(self) -> bool:
        """Whether it learns at less than its first rate."""
        return self.learning_rate != self.settings.policy_learning_rate

    def scale_learning_rate(self, factor: float) -> None:
        """Multiplies every learning rate, now and after restarts."""
        self.learning_rate *= factor
        for optimizer in self.optimizers().values():
            optimizer.param_groups[0]["lr"] = self.learning_rate

    def state(self) -> State:
        """Every tensor that decides how training goes on, but the generator and the model."""
        return nest(
            {
                "actor": self.actor.state_dict(),
                "critics": self.critics.state_dict(),
                "standardizer": self.standardizer.state_dict(),
                "sums": self.sums.state(),
                **{f"adam_{k}": moments(v) for k, v in self.optimizers().items()},
            }
        ) | {
            "log_temperature": self.log_temperature.detach(),
            "states": self.states[: self.stored],
            "counts": torch.tensor([self.stored, self.place, self.updates]),
            "learning_rate": torch.tensor(self.learning_rate, dtype=torch.float64),
        }

    @torch.no_grad()
    def load_state(self, state: State) -> None:
        """Goes on from `state`, that of the same settings; the model's must be loaded before."""
        self.learning_rate = state["learning_rate"].item()
        self.restart()
        self.actor.load_state_dict(part(state, "actor"))
        self.critics.load_state_dict(part(state, "critics"))
        self.standardizer.load_state_dict(part(state, "standardizer"))
        self.sums.load_state(part(state, "sums"))
        self.scale_learning_rate(1.0)
        for name, optimizer in self.optimizers().items():
            load_moments(optimizer, part(state, f"adam_{name}"))
        self.log_temperature.copy_(state["log_temperature"])
        self.stored, self.place, self.updates = state["counts"].tolist()
        self.states[: self.stored] = state["states"]


def zero_unless_finite(parameters: Iterable[Tensor]) -> Tensor:
    """Makes every gradient zero where one is not finite; returns whether all were.

    Nobody waits for the device.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    finite = torch.stack([g.sum() for g in gradients]).isfinite().all()
    for gradient in gradients:
        gradient.masked_fill_(~finite, 0.0)
    return finite
