"""What model.yaml says of a dynamics model, and the model built of it and its weights."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.models.description import check_description
from mbrl_bilevel.models.model_file import check_weights
from mbrl_bilevel.models.settings import ModelSettings

if TYPE_CHECKING:  # the class imports this file for its `save` and `load`
    from mbrl_bilevel.models.dynamics import DynamicsModel

SIZES = ("members", "hidden", "covariance", "noise", "layer_norm", "dropout")


def describe(model: "DynamicsModel") -> dict[str, Any]:
    """What `built` needs to build the same model again."""
    network, spec = model.network, model.env_spec
    return {
        "obs_dim": model.obs_dim,
        "act_dim": model.act_dim,
        "learn_reward": model.learn_reward,
        "members": model.members,
        "hidden": list(network.hidden),
        "covariance": network.covariance,
        "kind": network.kind,
        "log_std_bounds": list(network.log_std_bounds),
        "noise": network.noise,
        "layer_norm": network.layer_norm,
        "dropout": network.dropout,
        "elites": len(model.elites),
        "env_id": model.env_id,
        "env": None if spec is None else spec.to_plain(),
        "observation_names": list(model.observation_names),
        "action_box": None if model.action_box is None else [*map(list, model.action_box)],
    }


def built(
    kind: "type[DynamicsModel]", description: Mapping[str, Any], weights: dict[str, Tensor]
) -> "DynamicsModel":
    """The model of a description, with these weights.

    Raises:
        ValueError: they do not fit each other, or are those of no model.
        InputError: a number that is out of range.
    """
    check_description(description, weights)
    given = dict(description)
    elites, bounds = given.pop("elites"), given.pop("log_std_bounds")
    sizes = {name: given.pop(name) for name in SIZES if name in given}
    settings = ModelSettings(**sizes | {"hidden": tuple(sizes["hidden"])})
    gated = given.pop("gated", False)  # so earlier models say that they have two means
    given.setdefault("kind", "two_means" if gated else "gaussian")
    spec = given.pop("env", None)  # which models before version 0.2 do not have
    env_spec = None if spec is None else EnvSpec.from_plain(spec)
    with torch.device("meta"):  # nothing is allocated for a description that does not fit
        model = kind(
            given.pop("obs_dim"),
            given.pop("act_dim"),
            settings,
            log_std_bounds=(bounds[0], bounds[1]),
            env_spec=env_spec,
            **given,
        )
        model.elites = torch.empty(elites, dtype=torch.long)
    everything = torch.arange(model.network.heads, device=weights["elites"].device)
    informative = weights.setdefault("informative", everything)  # version 0.1 has none
    # Models before version 0.2 have none.
    weights.setdefault("network.recalibration", weights["lowest"].new_zeros(len(everything)))
    model.informative = torch.empty(len(informative), dtype=torch.long, device="meta")
    expected = model.state_dict()
    model.load_state_dict(weights, assign=True)
    check_weights(weights, expected, model.members, len(everything))
    model.restrict(informative)
    return model.requires_grad_(True)
