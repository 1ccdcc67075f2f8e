"""How what an ensemble is unsure of travels through imagined futures."""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import INPUT_BOUND, DynamicsModel
from mbrl_bilevel.models.inference import for_inference
from mbrl_bilevel.models.sampling import deal, deviation, draw, noise_like, take_rows
from mbrl_bilevel.protocols import ActionPrior, Trajectories

KINDS = ("ts1", "ts_inf", "mean", "mixture")


class Propagation:
    r"""A dynamics model's elites as a `TrajectoryModel`, by one way of propagating uncertainty.

    Every sequence is followed by `particles` futures at once. Chua et al. 2018 (PETS), section 5:

    - "ts1": at each step every particle is moved by a member drawn anew, whose Gaussian is sampled.
      Particles of all sequences are dealt to the members at random in equal shares (up to the
      remainder), so that a particle's step costs one member's evaluation.
    - "ts_inf": as before, but a particle stays with its member for the whole horizon, and each
      sequence has the same number of particles of every member.
    - "mean": one particle per member, which follows that member's mean.
    - "mixture": moment matching over members. At each step all E members predict from the
      particle's own state, and the next one is sampled from a Gaussian of independent dimensions
      with the mixture's moments, mean m = 1/E sum_e m_e and variance 1/E sum_e (s_e^2 + m_e^2)
      - m^2; a reward head is one more dimension. A particle's step costs E evaluations. (PETS'
      own moment matching fits its Gaussian over the particles as well; here particles keep apart.)

    Imagined observations stay within `model.reachable(start, steps)`. The elites are taken from the
    model when this is made.

    Args:
        particles: futures per sequence, a multiple of the elites for "ts_inf"; by default as many
            as cost one evaluation of every elite: one per elite, or a single one of "mixture".
        disagreement: fill `Trajectories.disagreement`: the standard deviation (divided by the
            count) over all particles of the imagined next observation, in training standard
            deviations, root mean square over dimensions whose change is not constant in the
            training part. For "mixture", the deviation of the
            members' means from the same state instead, root mean square over particles as well:
            without noise, and without what differed before the step.
        prior: actions in the state of each particle, by the given deviations, which take the place
            of actions.

    Raises:
        InputError: a number of particles that the kind cannot have, or a kind that is not there.
    """

    def __init__(
        self,
        model: DynamicsModel,
        kind: str = "ts_inf",
        *,
        particles: int | None = None,
        disagreement: bool = False,
        prior: ActionPrior | None = None,
    ) -> None:
        self.elites = len(model.elites)
        if particles is None:
            particles = 1 if kind == "mixture" else self.elites
        _check(kind, particles, self.elites)
        if disagreement and (self.elites if kind == "mixture" else particles) < 2:
            raise InputError(
                f"disagreement among {self.elites} members and {particles} particles of {kind!r}: "
                "it takes at least 2; train more members, or leave the disagreement at 0"
            )
        self.model, self.kind, self.particles = model, kind, particles
        self.disagreement, self.prior = disagreement, prior
        self.network = for_inference(model.network.select(model.elites))
        self._checked: Tensor | None = None
        self.counted: slice | Tensor = slice(None)  # dimensions that members can disagree about
        if len(model.informative) < model.network.heads:
            self.counted = model.informative_observations

    @torch.no_grad()
    def trajectories(
        self,
        obs: Float[Tensor, "b o"],
        actions: Float[Tensor, "b n t a"],
        generator: torch.Generator,
    ) -> Trajectories:
        """Follows every action sequence by all particles, in the environment's own units.

        Starts outside the range of the training data are warned of once, when `obs` is first seen:
        a planner asks for many futures of the same tensor.
        """
        if obs is not self._checked:
            self.model.check_starts(obs)
            self._checked = obs
        obs, actions = self.model.cast(obs), self.model.cast(actions)
        b, n, horizon, _ = actions.shape
        size, inputs = self.model.obs_dim, self.model.input_standardizer
        # States are kept in standard deviations all the way, so that no step needs to convert.
        start = (obs - inputs.mean[:size]) / inputs.std[:size]
        moves = actions.flatten(0, 1).transpose(0, 1).contiguous()  # [t r a], as states
        if self.prior is None:
            moves = self._standardised(moves)
        scale, shift = self._change()
        lowest, highest = (
            ((bound - inputs.mean[:size]) / inputs.std[:size]).repeat_interleave(n, 0)
            for bound in self.model.reachable(obs, horizon)
        )
        # Time goes first: a step reads and writes memory in one piece.
        states = start.new_empty(horizon + 1, self.particles, b * n, size)
        states[0] = start.repeat_interleave(n, 0)
        x = start.new_empty(self.particles, b * n, size + moves.shape[-1])
        rewards, spreads, taken = [], [], []
        for t in range(horizon):
            torch.clamp(states[t], -INPUT_BOUND, INPUT_BOUND, out=x[..., :size])
            if self.prior is None:
                x[..., size:] = moves[t]
            else:
                seen = states[t] * inputs.std[:size] + inputs.mean[:size]
                taken.append(self.prior(seen, moves[t].expand(self.particles, -1, -1)))
                x[..., size:] = self._standardised(taken[-1])
            y, spread = self._step(x, generator)
            y = self.model.widen(y)
            torch.addcmul(shift + states[t], y[..., :size], scale, out=states[t + 1])
            states[t + 1].clamp_(lowest, highest)
            if self.model.learn_reward:
                rewards.append(y[..., size])
            if spread is not None:
                far = (self.model.widen(spread)[..., :size] * scale)[..., self.counted]
                spreads.append(far.square().mean((0, -1)).sqrt())
        found = self._in_own_units(obs, states, rewards, spreads, n)
        if not taken:
            return found
        acts = torch.stack(taken, 2)
        return found._replace(actions=acts.reshape(self.particles, b, n, horizon, -1))

    def _standardised(self, actions: Float[Tensor, "*s a"]) -> Float[Tensor, "*s a"]:
        size, inputs = self.model.obs_dim, self.model.input_standardizer
        scaled = (actions - inputs.mean[size:]) / inputs.std[size:]
        return scaled.clamp(-INPUT_BOUND, INPUT_BOUND)

    def _change(self) -> tuple[Tensor, Tensor]:
        """Scale and shift from a standardised target to the change of a standardised state, [o]."""
        size, targets = self.model.obs_dim, self.model.target_standardizer
        std = self.model.input_standardizer.std[:size]
        return targets.std[:size] / std, targets.mean[:size] / std

    def _step(
        self, x: Float[Tensor, "p r i"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "p r n"], Float[Tensor, "p r n"] | None]:
        """Standardised targets of the particles; for "mixture", how far members' means spread."""
        if self.kind == "mixture":
            return self._matched(x, generator)
        if self.kind == "ts1":
            return self._dealt(x, generator), None
        gaussian = self.network(x.reshape(self.elites, -1, x.shape[-1]))
        y = gaussian.mean if self.kind == "mean" else draw(gaussian, generator)
        return y.reshape(*x.shape[:2], -1), None

    def _dealt(
        self, x: Float[Tensor, "p r i"], generator: torch.Generator
    ) -> Float[Tensor, "p r n"]:
        """One sample each from a random member, with equal shares of all rows."""
        rows = x.flatten(0, 1)
        index, place = deal(len(rows), self.elites, generator, x.device)
        y = draw(self.network(take_rows(rows, index)), generator).flatten(0, 1)
        return take_rows(y, place).reshape(*x.shape[:2], -1)

    def _matched(
        self, x: Float[Tensor, "p r i"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "p r n"], Float[Tensor, "p r n"]]:
        """A sample of the Gaussian with the mixture's moments, and the deviation of the means."""
        gaussian = self.network(x.flatten(0, 1))
        mean, spread = gaussian.mean.mean(0), deviation(gaussian.mean)
        std = (gaussian.std.square().mean(0) + spread.square()).sqrt()
        y = torch.addcmul(mean, std, noise_like(mean, generator))
        return y.reshape(*x.shape[:2], -1), spread.reshape(*x.shape[:2], -1)

    def _in_own_units(
        self,
        obs: Float[Tensor, "b o"],
        states: Float[Tensor, "t p r o"],
        rewards: list[Float[Tensor, "p r"]],
        spreads: list[Float[Tensor, "r"]],
        n: int,
    ) -> Trajectories:
        b, size, horizon = len(obs), self.model.obs_dim, len(states) - 1
        disagreement = None
        if self.disagreement:
            if self.kind == "mixture":
                each = torch.stack(spreads, -1)
            else:
                spread = deviation(states[1:].transpose(0, 1))[..., self.counted]
                each = spread.square().mean(-1).sqrt().mT
            disagreement = each.reshape(b, n, horizon)
        inputs, targets = self.model.input_standardizer, self.model.target_standardizer
        observations = states * inputs.std[:size] + inputs.mean[:size]
        observations = observations.unflatten(2, (b, n)).permute(1, 2, 3, 0, 4)
        observations[..., 0, :] = obs.unsqueeze(1)
        if not rewards:
            return Trajectories(observations, None, disagreement)
        reward = torch.stack(rewards, -1) * targets.std[size] + targets.mean[size]
        return Trajectories(
            observations, reward.reshape(self.particles, b, n, horizon), disagreement
        )


def _check(kind: str, particles: int, elites: int) -> None:
    if kind not in KINDS:
        raise InputError(f"propagation {kind!r}: choose one of {', '.join(KINDS)}")
    if particles < 1:
        raise InputError(f"particles {particles}: at least 1 is needed")
    if kind == "ts_inf" and particles % elites:
        raise InputError(
            f"particles {particles} of 'ts_inf' for {elites} elites: choose a multiple of "
            f"{elites}, or 'ts1', which takes any number"
        )
    if kind == "mean" and particles != elites:
        raise InputError(
            f"particles {particles} of 'mean', which has one for each of the {elites} elites: "
            "leave the number out"
        )
