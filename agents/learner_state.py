"""Checkpoints of agents: the states of their parts, step and generator, in one dictionary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

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


def joint_state(parts: Mapping[str, Part], step: int, generator: torch.Generator) -> State:
    """Every tensor that decides how an agent of these parts goes on."""
    return nest({name: one.state() for name, one in parts.items()}) | {
        "step": torch.tensor(step),
        "generator": generator.get_state(),
    }


def load_joint_state(
    parts: Mapping[str, Part], state: Mapping[str, Tensor], generator: torch.Generator
) -> int:
    """Takes `joint_state` back and returns its step."""
    for name, one in parts.items():
        one.load_state(part(state, name))
    # A generator's state lives on the CPU, whatever its device.
    generator.set_state(state["generator"].cpu())
    return int(state["step"])


def save_finite(folder: Path, state: State, step: int) -> None:
    """Writes a checkpoint.

    Raises:
        TrainingDiverged: a number in it is not finite; what stood in the folder stays.
    """
    # Before anything is written: a checkpoint that cannot be gone on from is worse than none.
    if not all(v.isfinite().all() for v in state.values() if v.is_floating_point()):
        raise TrainingDiverged(f"a state at step {step} is not finite; {REMEDY}")
    save_checkpoint(folder, state, {"step": step})


def newest_state(folder: Path, device: torch.device) -> State | None:
    """The state in the folder's newest checkpoint; None where there is none."""
    loaded = load_checkpoint(folder, str(device))
    return None if loaded is None else loaded[0]
