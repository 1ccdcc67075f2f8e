"""What decides an agent that learns: the flags of `train-agent`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from mbrl_bilevel.agents.presets import by_name_of
from mbrl_bilevel.agents.settings import AGENTS
from mbrl_bilevel.models.uncertainty import Penalty
from mbrl_bilevel.ranges import Count, Positive, Range, Threads
from mbrl_bilevel.scripts.command import Command
from mbrl_bilevel.scripts.objective_flags import ObjectiveFlags

SETTINGS = frozenset[str]().union(*(by_name_of(kind()) for kind in AGENTS.values()))

WholeNumber = Annotated[int, Range(0, 2**31 - 1)]
Share = Annotated[float, Range(0, 1)]
Weight = Annotated[float, Range(0, 1e6)]
Scale = Annotated[float, Range(1e-9, 1e6)]


@dataclass(frozen=True, kw_only=True)
class Config(ObjectiveFlags, Command):
    """Flags of train-agent."""

    agent: Literal["sac", "mbpo", "dhmbpo", "mopo", "pets"]
    """sac: no model; mbpo: a policy in a learned model, online; mopo: the same from a data set;
    pets: planning online, no policy."""
    out: Path
    """The run folder: config, metrics, TensorBoard events, checkpoint, policy and model."""
    env: str | None = None
    """Where online agents act and every agent is evaluated, e.g. Hopper-v5. Default: the data
    set's."""
    dataset: str | None = None
    """Of mopo: Minari id, or the folder of a Minari data set."""
    model: Path | None = None
    """Of mopo: the run folder of a trained model; default: one is trained, into OUT/model."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint."""
    download: bool = False
    """Fetch the data set by its id where it is not on this machine."""
    max_steps: Count | None = None
    """End episodes, real ones and those of evaluations, after so many steps; default: the
    environment's own limit."""
    learn_reward: Literal["auto", "yes"] | None = None
    """Let the model learn the reward; auto: where the task's reward function is not known."""
    unchecked_task: bool = False
    """Go on where data or environment pay, or end, otherwise than the task says."""
    steps: Count | None = None
    """Real steps online, policy updates offline; default of this and the next: by agent and
    task."""
    start_steps: Count | None = None
    """Real steps by random actions before anything is learned."""
    imitate_steps: WholeNumber | None = None
    """Of mopo: updates at first that teach the policy to do as the data do."""
    updates_per_step: Count | None = None
    """Policy updates per real step."""
    refit_every: Count | None = None
    """Online, steps between fits of the model."""
    imagine_every: Count | None = None
    """Steps between rounds of imagined rollouts; few, so that critics know the policy's newest
    actions."""
    model_steps: Count | None = None
    """Gradient steps of each fit of the model."""
    first_model_steps: Count | None = None
    """Of dhmbpo: gradient steps of the first fit of the model."""
    first_updates_per_step: Count | None = None
    """Of dhmbpo: policy updates per real step until the second fit of the model."""
    critic_updates: WholeNumber | None = None
    """Of dhmbpo: updates of the critics alone after each fit of the model."""
    horizon: Count | None = None
    """Of dhmbpo: steps of the differentiated rollout."""
    rollouts: Count | None = None
    """Imagined rollouts in a round."""
    rollout_length: tuple[WholeNumber, WholeNumber, WholeNumber, WholeNumber] | None = None
    """SHORTEST LONGEST FROM TO: imagined steps of a rollout, growing between two real steps."""
    recent_starts: Share | None = None
    """Share of rollouts that begin in one of the latest 1,000 real states, the others in any."""
    multi_step: bool | None = None
    """Critics learn from each imagined step by all that follow in its rollout, and by rewards
    alone; else by the next one, and by entropy too."""
    real_ratio: Share | None = None
    """Share of real transitions in each batch of the policy."""
    temperature: Scale | None = None
    """Reward units that a nat of the policy's entropy is worth, to begin with."""
    target_entropy: Annotated[float, Range(-1e6, 1e6)] | None = None
    """Nats of the unit action that the temperature steers to; default: by task, else -1 per
    dimension."""
    actor_learning_rate: Positive | None = None
    """Adam's, of the actor alone; default: by task, else --policy-learning-rate."""
    averaging_rate: Annotated[float, Range(0, 1, above=True)] | None = None
    """Share of the actor, at every update, in the average of actors that is evaluated and kept; 1
    is the actor itself."""
    discount: Annotated[float, Range(0, 0.999999)] | None = None
    """Of rewards, per step."""
    termination_cost: Weight | None = None
    """Reward units that the policy learns to lose where an episode terminates; returns leave them
    out."""
    reward_scale: Scale | None = None
    """Of everything that the policy learns from."""
    value_weight: Weight | None = None
    """Of mopo: how much the policy goes after values, beside staying near the data."""
    critic_layer_norm: bool | None = None
    """Normalise the critics' hidden layers: steadier where many updates are made per step."""
    penalty: Penalty | Literal["none"] | None = None
    """What is taken off imagined rewards: the largest predicted deviation of a member, the
    members' disagreement, or nothing."""
    penalty_weight: Weight | None = None
    """Reward units per unit of the penalty, which is in training standard deviations."""
    members: Count | None = None
    """Members of the model's ensemble."""
    elites: Count | None = None
    """How many members the policy meets, the best by held-out error; default: all."""
    hidden: tuple[Count, ...] | None = None
    """Units of the model's hidden layers."""
    policy_hidden: Count | None = None
    """Units of both hidden layers of actor and critics."""
    policy_learning_rate: Positive | None = None
    """Adam's, of actor, critics and temperature."""
    planner: Literal["icem", "cem", "mppi", "random_shooting"] | None = None
    """Of pets."""
    log_every: Count = 500
    """Steps between two points of the curves."""
    evaluate_every: Count = 1_000
    """Steps between two evaluations of the policy in the real environment."""
    episodes: Annotated[int, Range(1, 1_000_000)] = 5
    """Of each evaluation, by the policy's mean action, in a process of their own."""
    checkpoint_seconds: Annotated[float, Range(0, math.inf)] = 30.0
    """Seconds between two checkpoints."""
    threads: Threads = 1
    """Of torch: networks this small gain little from more, and lose much on a busy machine."""
