"""Which targets a model's metrics count, and which move although they never did before."""

import warnings
from typing import Any

import torch

from mbrl_bilevel.data.standardizer import CONSTANT_BELOW
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.models.constant_targets import listed
from mbrl_bilevel.models.dynamics import DynamicsModel


def target_counts(model: DynamicsModel) -> dict[str, Any]:
    """As JSON: how many targets there are, how many vary in the training part, and the others."""
    predicted = set(model.informative.tolist())
    names = model.target_names
    return {
        "targets": len(names),
        "varying_targets": len(predicted),
        "constant_targets": [name for i, name in enumerate(names) if i not in predicted],
    }


def how_many_vary(counts: dict[str, Any]) -> str:
    """The counts as part of a sentence."""
    if not counts["constant_targets"]:
        return f"{counts['targets']} target dimensions"
    return f"{counts['varying_targets']} of {counts['targets']} target dimensions vary"


def warn_of_moving(model: DynamicsModel, transitions: Transitions, part: str) -> None:
    """UserWarning of targets, constant in the training part, that move in this `part` of the data.

    The model predicts the constant and no metric counts the error, so the reader is told how far
    they move, in their own units.
    """
    constant = torch.ones(len(model.target_names), dtype=torch.bool, device=model.elites.device)
    constant[model.informative] = False
    if len(transitions) == 0 or not bool(constant.any()):
        return
    names = [name for name, rests in zip(model.target_names, constant, strict=True) if rests]
    distance = (model.targets(transitions) - model.target_standardizer.mean).abs().amax(0)
    reached = torch.cat([transitions.next_observation, transitions.reward.unsqueeze(-1)], -1)
    rounding = CONSTANT_BELOW * reached.abs().amax(0)[: len(constant)]
    distance, rounding = distance[constant], rounding[constant]
    order = [i for i in distance.argsort(descending=True).tolist() if distance[i] > rounding[i]]
    if order:
        far = [f"{names[i]} (by up to {float(distance[i]):.3g})" for i in order]
        one = len(order) == 1
        subject, verb = ("target that is", "moves") if one else ("targets that are", "move")
        warnings.warn(
            f"{len(order)} {subject} constant in the training part {verb} in the {part} part, "
            f"where the model predicts the constant and no metric counts the error: {listed(far)}; "
            "train on data in which they move",
            stacklevel=2,
        )
