"""A dynamics model: an ensemble that predicts the change of observation, and the reward."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.standardizer import Standardizer
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.constant_targets import (
    informative_targets,
    sparse_targets,
    warn_of_constant,
    warn_of_constant_actions,
    warn_of_sparse,
)
from mbrl_bilevel.models.distributions import DiagonalGaussian, FullGaussian, Gaussian
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.inference import InferenceNetwork
from mbrl_bilevel.models.model_file import read_model, write_model
from mbrl_bilevel.models.network_kinds import NETWORKS
from mbrl_bilevel.models.observation_range import (
    clamp_to_reachable,
    reachable,
    warn_of_starts_outside,
)
from mbrl_bilevel.models.sampling import deal, draw, take_rows
from mbrl_bilevel.models.saved_model import built, describe
from mbrl_bilevel.models.settings import ModelSettings, NetworkKind
from mbrl_bilevel.protocols import NextStep

USUAL = ModelSettings()
RANGE_MARGIN = 0.1
INPUT_BOUND = 10.0  # standard deviations, beyond which an input tells the network no more
REACH = 10.0  # standard deviations of the training changes that a state outside the range may move


class DynamicsModel(nn.Module):
    """Predicts next_observation - observation (and the reward) from observation and action.

    The network sees inputs x = (observation, action) and targets y = (change, reward), standardised
    by statistics of the training part. Public methods take the environment's own units in any
    dtype. `elites` are the members that sampling and planning use, best first. The network predicts
    the k `informative` targets; those constant in the training part are predicted as that constant.
    """

    input_standardizer: Standardizer
    target_standardizer: Standardizer
    elites: Tensor
    informative: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        settings: ModelSettings = USUAL,
        *,
        learn_reward: bool = False,
        kind: NetworkKind = "gaussian",
        log_std_bounds: tuple[float, float] = (-10.0, 2.0),
        env_id: str | None = None,
        env_spec: EnvSpec | None = None,
        observation_names: Sequence[str] | None = None,
        action_box: Sequence[Sequence[float]] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.obs_dim, self.act_dim, self.learn_reward = obs_dim, act_dim, learn_reward
        if env_spec is None and env_id is not None:
            env_spec = EnvSpec(env_id)
        self.env_spec = env_spec
        names = observation_names or [f"observation {i}" for i in range(obs_dim)]
        if len(names) != obs_dim:
            raise InputError(f"{len(names)} observation names for {obs_dim} observation dimensions")
        self.observation_names = tuple(names)
        self.action_box = action_box
        self.network = NETWORKS[kind](
            obs_dim + act_dim,
            obs_dim + learn_reward,
            members=settings.members,
            hidden=settings.hidden,
            covariance=settings.covariance,
            log_std_bounds=log_std_bounds,
            noise=settings.noise,
            layer_norm=settings.layer_norm,
            dropout=settings.dropout,
            generator=generator,
        )
        _register_statistics(self)
        self._warned_of_starts = False
        self._inference = InferenceNetwork()

    @property
    def env_id(self) -> str | None:
        """The id of the environment that it was trained for, where that is known."""
        return None if self.env_spec is None else self.env_spec.id

    @property
    def members(self) -> int:
        return self.network.members

    @property
    def target_names(self) -> tuple[str, ...]:
        """Readable names of the target dimensions."""
        return (*self.observation_names, "reward") if self.learn_reward else self.observation_names

    @property
    def informative_names(self) -> tuple[str, ...]:
        """Names of the targets that the network predicts."""
        return tuple(self.target_names[i] for i in self.informative.tolist())

    @property
    def informative_observations(self) -> Int[Tensor, "m"]:
        """Dimensions of the observation whose change is predicted; all where none is."""
        found = self.informative[self.informative < self.obs_dim]
        return found if len(found) else torch.arange(self.obs_dim, device=found.device)

    def restrict(self, informative: Int[Tensor, "k"]) -> None:
        """Makes the network predict only these targets, in ascending order."""
        self.informative = informative
        self.network.restrict(informative)

    def widen(self, y: Float[Tensor, "*s k"], fill: float = 0.0) -> Float[Tensor, "*s n"]:
        """From the informative targets to all, `fill` in the constant ones."""
        if len(self.informative) == (n := self.network.heads):
            return y
        return y.new_full((*y.shape[:-1], n), fill).index_copy(-1, self.informative, y)

    def fit_standardizers(self, train: Transitions) -> None:
        """Takes the statistics of inputs and targets, and the range of observations, from `train`.

        The range, widened by RANGE_MARGIN of itself, is what imagined steps can reach from inside.
        Constant targets are left out of the network's; they and constant actions are warned of.

        Raises:
            InputError: all targets are constant, or values that are not finite.
        """
        self.input_standardizer.fit(torch.cat([train.observation, train.action], -1))
        targets = self.targets(train)
        self.target_standardizer.fit(targets)
        before = set(self.informative.tolist())
        self.restrict(informative_targets(targets))
        rest = sorted(before - set(self.informative.tolist()))  # an earlier fit named the others
        warn_of_constant([self.target_names[i] for i in rest], targets.shape[1])
        warn_of_constant_actions(train.action)
        self._hold_sparse(targets)
        seen = torch.cat([train.observation, train.next_observation])
        lowest, highest = seen.amin(0), seen.amax(0)
        margin = RANGE_MARGIN * (highest - lowest)
        self.lowest.copy_(lowest - margin)
        self.highest.copy_(highest + margin)

    def _hold_sparse(self, targets: Float[Tensor, "b n"]) -> None:
        sparse = self.informative[sparse_targets(targets[:, self.informative])]
        new = sparse[~self.network.held[sparse]].tolist()  # an earlier fit named the others
        warn_of_sparse([self.target_names[i] for i in new], len(self.informative))
        self.network.hold_std(sparse)

    @torch.no_grad()
    def encode(self, transitions: Transitions) -> tuple[Float[Tensor, "b i"], Float[Tensor, "b k"]]:
        """Standardised inputs x and informative targets y of real transitions."""
        x = self.inputs(transitions.observation, transitions.action)
        y = self.target_standardizer.standardize(self.targets(transitions))
        return x, y[:, self.informative]

    def inputs(
        self, obs: Float[Tensor, "*s o"], act: Float[Tensor, "*s a"]
    ) -> Float[Tensor, "*s i"]:
        """What the network sees: standardised, and clipped to INPUT_BOUND deviations.

        Contact forces may come hundreds of deviations away, where a network says anything.
        """
        x = self.input_standardizer.standardize(torch.cat([obs, act], -1))
        return x.clamp(-INPUT_BOUND, INPUT_BOUND)

    def targets(self, transitions: Transitions) -> Float[Tensor, "b n"]:
        """Change of the observation, and the reward where it is learned, in their own units."""
        if not self.learn_reward:
            return transitions.change
        return torch.cat([transitions.change, transitions.reward.unsqueeze(-1)], -1)

    def predict(self, obs: Float[Tensor, "*e b o"], act: Float[Tensor, "*e b a"]) -> Gaussian:
        """Every member's Gaussian over (change of observation, reward), [E, B, n], in raw units.

        A target that is constant in the training part has that value and deviation 0.
        """
        return self._restore(self.network(self.inputs(obs, act)))

    def _restore(self, standardised: Gaussian) -> Gaussian:
        scale = self.target_standardizer.std
        mean = self.target_standardizer.restore(self.widen(standardised.mean))
        if isinstance(standardised, DiagonalGaussian):
            log_std = self.widen(standardised.log_std, -torch.inf)
            return DiagonalGaussian(mean, log_std + scale.log())
        tril = self.widen(self.widen(standardised.scale_tril).mT).mT
        return FullGaussian(mean, scale.unsqueeze(-1) * tril)

    @torch.no_grad()
    def sample(
        self,
        obs: Float[Tensor, "b o"],
        act: Float[Tensor, "b a"],
        generator: torch.Generator,
        member: Int[Tensor, "b"] | None = None,
        *,
        check_starts: bool = True,
    ) -> NextStep:
        """One sampled next step per row, from `member[b]`, or from the mixture of elites.

        The mixture gives every row one elite at random, with equal shares of the batch, so that
        each row is computed by one member only. `check_starts` waits for the device, to warn of
        rows outside the range of the training data (once).
        """
        if check_starts:
            self.check_starts(obs)
        obs, act = self.cast(obs), self.cast(act)
        if member is not None:
            y = draw(self.predict(obs, act), generator)
            return self.next_step(obs, y[member, torch.arange(len(obs), device=obs.device)])
        rows, place = deal(len(obs), len(self.elites), generator, obs.device)
        gaussian = self.elite_network()(take_rows(self.inputs(obs, act), rows))
        y = take_rows(draw(gaussian, generator).flatten(0, 1), place)
        return self.next_step(obs, self.target_standardizer.restore(self.widen(y)))

    def elite_network(self) -> GaussianEnsemble:
        """The elites as they are, for passes without gradients."""
        return self._inference.of(self.network, self.elites)

    def cast(self, values: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The same values in the dtype of the weights."""
        return values.to(self.lowest.dtype)

    def next_step(self, obs: Float[Tensor, "*s o"], y: Float[Tensor, "*s n"]) -> NextStep:
        """Where targets y lead, in own units; bounded, lest a planner follow them anywhere."""
        after = obs + y[..., : self.obs_dim]
        after = clamp_to_reachable(after, obs, self.lowest, self.highest, self._reach(1))
        return NextStep(after, y[..., self.obs_dim] if self.learn_reward else None)

    def reachable(
        self, obs: Float[Tensor, "*s o"], steps: int = 1
    ) -> tuple[Float[Tensor, "*s o"], Float[Tensor, "*s o"]]:
        """Lowest and highest observations that `steps` imagined steps from `obs` may come to.

        They are `lowest` and `highest` in every dimension that starts between them; one that starts
        outside may move by the mean and REACH standard deviations of the training changes a step.
        """
        return reachable(obs, self.lowest, self.highest, self._reach(steps))

    def _reach(self, steps: int) -> Float[Tensor, "o"]:
        targets, size = self.target_standardizer, self.obs_dim
        return steps * (targets.mean[:size].abs() + REACH * targets.std[:size])

    def check_starts(self, obs: Float[Tensor, "*s o"]) -> None:
        """Warns, once, of starts outside the range of the training data; waits for the device."""
        if not self._warned_of_starts:
            self._warned_of_starts = warn_of_starts_outside(
                obs, self.lowest, self.highest, self.observation_names
            )

    def save(self, folder: Path | str) -> None:
        """Writes model.safetensors (with a checksum) and model.yaml into `folder`, each by rename.

        Raises:
            InputError: weights that are not finite. OSError: the folder cannot be written.
        """
        write_model(Path(folder), self.state_dict(), describe(self))

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> "DynamicsModel":
        """The model that `save` wrote into `folder`.

        Raises:
            InputError: no model there, or files that are damaged or do not fit each other.
        """
        return read_model(Path(folder), partial(built, cls), device).to(device)


def _register_statistics(model: DynamicsModel) -> None:
    """What a fit finds out beside the weights; of no data they restrict nothing."""
    targets = model.obs_dim + model.learn_reward
    model.input_standardizer = Standardizer(model.obs_dim + model.act_dim)
    model.target_standardizer = Standardizer(targets)
    model.register_buffer("elites", torch.arange(model.members))
    model.register_buffer("informative", torch.arange(targets))
    largest = torch.finfo(torch.float32).max
    model.register_buffer("lowest", torch.tensor([-largest] * model.obs_dim))
    model.register_buffer("highest", torch.tensor([largest] * model.obs_dim))
