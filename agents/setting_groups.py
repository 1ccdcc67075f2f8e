"""Groups of settings that agents are composed of; see `agents/settings.py`."""

from dataclasses import astuple, dataclass
from typing import Annotated, Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.ranges import BatchSize, Count, NotNegative, Positive, Range, check_ranges, flag

WHOLE = Range(0, 2**31 - 1)
MOST_ROWS = 2**63 - 1  # torch counts rows by 64-bit integers

WholeNumber = Annotated[int, WHOLE]
Share = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 1, above=True)]
Weight = Annotated[float, Range(0, 1e6)]
Scale = Annotated[float, Range(1e-9, 1e6)]


@dataclass(frozen=True)
class RolloutLength:
    """Steps of a model rollout: grows linearly from (first_step, shortest) to (last_step, longest).

    MBPO's schedule (Janner et al. 2019, appendix C): whole numbers that never fall.

    Raises:
        InputError: numbers out of range, or lengths or steps that fall.
    """

    shortest: int = 1
    """Length up to real step first_step."""
    longest: int = 1
    """Length from real step last_step on."""
    first_step: int = 0
    """Real step at which lengths begin to grow."""
    last_step: int = 1
    """Real step at which they stop growing."""

    def __post_init__(self) -> None:
        shown = f"{flag('rollout_length')} {' '.join(map(str, astuple(self)))}"
        for number in astuple(self):
            if number not in WHOLE:
                raise InputError(f"{shown}: choose {WHOLE.remedy(number)}")
        if not (1 <= self.shortest <= self.longest and self.first_step < self.last_step):
            raise InputError(
                f"{shown}: rollout lengths from {self.shortest} at step {self.first_step} to "
                f"{self.longest} at step {self.last_step}: lengths start at 1, and neither they "
                "nor the steps may fall"
            )

    def __call__(self, step: int) -> int:
        """The length at a real step."""
        share = (step - self.first_step) / (self.last_step - self.first_step)
        share = min(max(share, 0.0), 1.0)
        return int(self.shortest + share * (self.longest - self.shortest))


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """Soft actor-critic: networks, optimiser and targets of the policy and its critics."""

    policy_hidden: Count = 256
    """Units of each of the two hidden layers of actor and critics."""
    policy_learning_rate: Positive = 3e-4
    """Adam's learning rate for critics, temperature and, by default, the actor."""
    actor_learning_rate: Positive | None = None
    """Adam's learning rate for the actor; default: --policy-learning-rate."""
    policy_batch_size: BatchSize = 256
    """Transitions per policy update."""
    updates_per_step: Count = 1
    """Policy updates per step."""
    discount: Annotated[float, Range(0, 0.999999)] = 0.99
    """Discount factor gamma."""
    temperature: Scale = 1.0
    """Initial entropy temperature alpha."""
    scale_temperature: bool = True
    """Multiply --temperature by --reward-scale, so that it is in unscaled rewards."""
    target_entropy: Annotated[float, Range(-1e6, 1e6)] | None = None
    """Target entropy of the action in [-1, 1], in nats; default: -1 per action dimension."""
    entropy_in_values: bool | None = None
    """Soft values: critics include the policy's entropy at later steps; default: only without
    --multi-step."""
    target_rate: Rate = 0.005
    """Polyak rate tau of the target critics."""
    averaging_rate: Rate = 1.0
    """Polyak rate of the averaged actor, which is evaluated and saved; 1: the actor itself."""
    critic_layer_norm: bool = False
    """Layer normalisation in the critics; stabilises many updates per step."""
    termination_cost: Weight = 0.0
    """Subtracted from the reward of transitions that terminate the episode, but not from reported
    returns."""
    reward_scale: Scale = 1.0
    """Factor on every reward that the policy learns from."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class AgentModelSettings(ModelSettings):
    """The ensemble that models the environment, and how long it is trained."""

    learn_reward: Literal["auto", "yes"] = "auto"
    """Predict the reward too; auto: if the task's reward function is unknown."""
    model_steps: Count = 400
    """Gradient steps of each fit of the model."""


@dataclass(frozen=True, kw_only=True)
class RolloutModelSettings(AgentModelSettings):
    """What rollouts are made in: the ensemble that models the environment, or its physics."""

    model: Literal["learned", "simulator"] = "learned"
    """What imagines transitions: the learned model, or the physics of the real environment."""


@dataclass(frozen=True, kw_only=True)
class RefitSettings:
    """Repeated fits of the model to all real data so far."""

    refit_every: Count = 250
    """Real steps between fits of the model."""
    first_model_steps: Count | None = None
    """Gradient steps of the first fit of the model; default: --model-steps."""
    model_batch_size: BatchSize = 256
    """Rows per member and gradient step in the fits of the model."""
    model_resampling: Literal["shared", "bootstrap"] = "shared"
    """Whether members see the same batches, or each its own bootstrap sample of the data."""
    model_learning_rate: Positive = 1e-3
    """Adam's learning rate in the fits of the model."""
    model_weight_decay: NotNegative = 1e-5
    """Decoupled weight decay in the fits of the model."""
    model_schedule: Literal["constant", "cosine", "plateau"] = "constant"
    """Learning rate schedule within a fit of the model."""
    model_evaluations: Count = 4
    """Held-out evaluations in a fit of the model; each member keeps its best parameters."""
    model_held_out: Annotated[float, Range(0.001, 0.5)] = 0.1
    """Share of the real data held out in a fit of the model."""
    model_held_out_rows: Annotated[int, Range(50, 2**31 - 1)] | None = None
    """Largest number of real transitions held out in a fit of the model; default: no limit."""
    model_stop: Literal["steps", "held_out"] = "steps"
    """When a fit of the model ends: steps: after --model-steps; held_out: once a paired test of
    held-out scores finds no progress for --model-patience evaluations."""
    model_patience: Count = 10
    """Evaluations without progress after which a fit ends, with --model-stop held_out."""
    model_evaluate_every: Count | None = None
    """Gradient steps between held-out evaluations, with --model-stop held_out; default: an epoch
    of the training rows."""
    model_progress_level: Annotated[float, Range(0, 0.5, above=True)] = 0.5
    """Level of the paired test of progress; .5: a lower mean of the held-out scores is progress."""
    model_cap: Annotated[float, Range(1, 1e6)] = 5.0
    """Most gradient steps of a fit with --model-stop held_out, as a multiple of --model-steps."""
    model_optimizer: Literal["new", "kept"] = "new"
    """Whether each fit of the model begins with new moments of AdamW, or with those of the last."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def held_out_share(self, count: int) -> float:
        """The share of so many real transitions that is held out."""
        share, most = self.model_held_out, self.model_held_out_rows
        return share if most is None else min(share, most / count)


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """Rollouts of the policy in the model, branched from real states."""

    rollouts: Count = 1_000
    """Rollouts per round, each branched from a real state."""
    rollout_length: RolloutLength = RolloutLength()
    """SHORTEST LONGEST FIRST LAST: length of a rollout, which grows linearly from SHORTEST at step
    FIRST to LONGEST at step LAST."""
    imagine_every: Count = 25
    """Steps between rounds of rollouts."""
    imagined_rounds: Count = 4
    """Number of latest rounds that the policy learns from."""
    real_ratio: Share = 0.05
    """Share of real transitions in the batch of a policy update."""
    multi_step: bool = False
    """Train critics on n-step targets along each rollout, instead of one-step targets."""
    penalty: Literal["none", "aleatoric", "disagreement", "bellman"] = "none"
    """Uncertainty subtracted from rewards in the model: aleatoric: the largest predicted standard
    deviation of a member; disagreement: the standard deviation of the members' means; bellman: the
    standard deviation of the members' Bellman targets, at each update anew."""
    penalty_weight: Weight = 0.0
    """Weight of the penalty: reward per training standard deviation of uncertainty; of bellman, per
    unit of the rewards that critics learn from."""
    penalty_samples: Count = 10
    """Samples of each member's prediction in a Bellman target, with --penalty bellman."""
    rollout_cut: Literal["none", "disagreement"] = "none"
    """Where rollouts end early: disagreement: as soon as the members' predictions differ more than
    in real states, by their Jensen-Shannon divergence (MACURA)."""
    cut_quantile: Share = 0.95
    """Quantile of the divergence in real states that is the threshold, with --rollout-cut."""
    cut_scale: Scale = 1.0
    """Factor on that threshold."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.penalty == "bellman" and self.multi_step:
            raise InputError(
                "--penalty bellman of --multi-step: the penalty is of one-step targets; choose "
                "--multi-step False, or another penalty"
            )
        if self.rollout_cut != "none" and self.multi_step:
            raise InputError(
                "--rollout-cut of --multi-step: targets along a rollout need all of its steps; "
                "choose --multi-step False, or --rollout-cut none"
            )
        if self.capacity > MOST_ROWS:
            raise InputError(
                f"--rollouts {self.rollouts} of up to {self.rollout_length.longest} steps, "
                f"{self.imagined_rounds} rounds of them: no memory holds {self.capacity:.2g} "
                "transitions; choose fewer or shorter rollouts"
            )

    @property
    def capacity(self) -> int:
        """Transitions of the rounds that are learned from, at their longest."""
        return self.imagined_rounds * self.rollouts * self.rollout_length.longest


@dataclass(frozen=True, kw_only=True)
class StartStateSettings:
    """Real states that rollouts are branched from."""

    recent_starts: Share = 0.5
    """Share of rollouts that start in one of the latest real states; the others start in any."""
    recent_states: Count = 1_000
    """Number of real states that count as latest."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class ImitationSettings:
    """Behaviour cloning: the start of an offline policy, and a term of its loss."""

    imitate_steps: WholeNumber = 10_000
    """Initial steps that train the policy by behaviour cloning, and the critics on its values."""
    value_weight: Weight = 2.5
    """Weight of the normalised value relative to behaviour cloning in the actor's loss (alpha of
    TD3+BC)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class TwoHorizonSettings:
    """Policy gradients through the model: networks, optimiser and both rollouts."""

    policy_hidden: Count = 256
    """Units of each of the three hidden layers of actor and critics."""
    policy_learning_rate: Positive = 3e-4
    """Adam's learning rate for actor, critics and temperature."""
    policy_batch_size: BatchSize = 256
    """Rollouts per policy update."""
    updates_per_step: Count = 1
    """Policy updates per real step."""
    first_updates_per_step: Count = 5
    """Policy updates per real step between the first fit of the model and the second."""
    critic_updates: WholeNumber = 250
    """Updates of the critics alone after each fit of the model."""
    horizon: Count = 5
    """Steps of the differentiated rollout."""
    detached_horizon: Count = 20
    """Steps of the detached rollouts, whose states the differentiated ones start from."""
    detached_every: Count = 20
    """Updates between detached rollouts."""
    detached_rounds: Count = 10
    """Number of latest detached rollouts whose states are kept."""
    critics: Annotated[int, Range(2, 2**31 - 1)] = 5
    """Number of critics; targets take the smaller value of two drawn at random."""
    critic_dropout: Annotated[float, Range(0, 0.9)] = 0.001
    """Dropout in the critics' hidden layers."""
    discount: Annotated[float, Range(0, 0.999999)] = 0.995
    """Discount factor gamma."""
    temperature: Scale = 0.1
    """Initial entropy temperature alpha."""
    target_entropy: Annotated[float, Range(-1e6, 1e6)] | None = None
    """Target entropy of the action in [-1, 1], in nats; default: -1 per action dimension."""
    target_rate: Rate = 0.005
    """Polyak rate tau of the target critics."""
    averaging_rate: Rate = 1e-3
    """Polyak rate of the averaged actor, which is evaluated and saved; 1: the actor itself."""

    def __post_init__(self) -> None:
        check_ranges(self)


def soft_values(policy: PolicySettings, rollout: RolloutSettings) -> bool:
    """Whether critics count the policy's entropy at later steps.

    n-step targets hold rewards alone: the entropy of the steps in between was that of older actors.
    """
    wanted = policy.entropy_in_values
    return not rollout.multi_step if wanted is None else wanted
