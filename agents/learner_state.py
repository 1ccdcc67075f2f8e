"""Checkpoints of agents: the states of their parts, step and generator, in one dictionary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.nested_state import State, nest, part
from mbrl_bilevel.training.checkpoint import load_checkpoint, save_checkpoint
from mbrl_bilevel.training.divergence import TrainingDiverged

REMEDY = "lower the learning rate, the updates per step or the rollout length"


@runtime_checkable
class Part(Protocol):
    """What has a state of tensors, which `load_state` takes back."""

    def state(self) -> State: ...

    def load_state(self, state: State) -> None: ...


class ModelState:
    """The weights of a model that is fitted again, its elites, and what it knows of its targets."""

    def __init__(self, model: DynamicsModel) -> None:
        self.model = model

    def state(self) -> State:
        return self.model.state_dict() | {"held": self.model.network.held}

    def load_state(self, state: State) -> None:
        # Not by load_state_dict, which would refuse another number of elites or of targets.
        self.model.elites = state["elites"]
        # A fit may have found targets that stood still: the network has no outputs for them.
        self.model.restrict(state["informative"])
        # Before the weights are copied: the next fit must not take sparse targets for new ones and
        # begin their deviations anew.
        self.model.network.hold_std(state["held"].nonzero().flatten())
        for name, tensor in self.model.state_dict().items():
            if name not in ("elites", "informative"):
                tensor.copy_(state[name])


@runtime_checkable
class Checkpointed(Protocol):
    """An agent as its checkpoints see it."""

    generator: torch.Generator
    step: int

    @property
    def parts(self) -> Mapping[str, Part]:
        """Everything that changes, in the order in which it is loaded."""


def state_of(agent: Checkpointed) -> State:
    """Every tensor that decides how training goes on."""
    return nest({name: one.state() for name, one in agent.parts.items()}) | {
        "step": torch.tensor(agent.step),
        "generator": agent.generator.get_state(),
    }


def load_state(agent: Checkpointed, state: State) -> None:
    """Goes on from `state`, that of an agent of the same settings (and data, for offline ones)."""
    for name, one in agent.parts.items():
        one.load_state(part(state, name))
    # A generator's state lives on the CPU, whatever its device.
    agent.generator.set_state(state["generator"].cpu())
    agent.step = int(state["step"])


def save_agent(agent: Checkpointed, folder: Path) -> None:
    """Writes a checkpoint.

    Raises:
        TrainingDiverged: a number in it would not be finite; what stood in the folder stays.
    """
    state = state_of(agent)
    # Before anything is written: a checkpoint that cannot be gone on from is worse than none.
    if not all(v.isfinite().all() for v in state.values() if v.is_floating_point()):
        raise TrainingDiverged(f"a state at step {agent.step} is not finite; {REMEDY}")
    save_checkpoint(folder, state, {"step": agent.step})


def load_agent(agent: Checkpointed, folder: Path) -> None:
    """Goes on from the folder's newest checkpoint; from the start where there is none."""
    loaded = load_checkpoint(folder, str(agent.generator.device))
    if loaded is not None:
        load_state(agent, loaded[0])
