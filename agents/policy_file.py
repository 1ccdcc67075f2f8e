"""A trained policy in one file, which acts without torch and holds no code."""

from collections.abc import Mapping
from pathlib import Path

import torch
from numpy import ndarray

from mbrl_bilevel.agents.behaviour import ACTIVATIONS, BehaviourPolicy, hidden_layers
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import parse_json
from mbrl_bilevel.tensor_files import load_tensors, save_tensors

FILE = "policy.safetensors"


def save_policy(folder: Path, weights: Mapping[str, ndarray], metadata: Mapping[str, str]) -> None:
    """Replaces the folder's policy by rename.

    `metadata` names env_id and algorithm, and as env the environment's spec in JSON.
    """
    # safetensors, not pickle: a policy from elsewhere is data and runs nothing.
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    save_tensors(folder / FILE, tensors, metadata)


def load_policy_folder(folder: Path) -> BehaviourPolicy:
    """The policy that a run of `train-agent` left in its folder.

    Raises:
        InputError: none is there, or it is damaged or no policy.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(
            f"{folder} holds no policy ({FILE}); name a run folder of `mbrl-bilevel train-agent`"
        )
    try:
        tensors, texts = load_tensors(path)
        _check(tensors)
        if texts.get("activation", "relu") not in ACTIVATIONS:
            raise ValueError(f"its activation {texts['activation']!r} is unknown")
        if "env_id" not in texts:
            raise ValueError("it names no environment")
    except (ValueError, OSError) as error:
        raise InputError(f"the policy {path} is damaged ({error}); train it again") from None
    return BehaviourPolicy({name: tensors[name].numpy() for name in _shapes(tensors)}, texts)


def env_of_policy(policy: BehaviourPolicy, folder: Path) -> EnvSpec:
    """The environment that the policy in a folder was trained in.

    Raises:
        InputError: what stands there is damaged.
    """
    try:
        text = policy.metadata.get("env")
        if text is None:  # a policy from before version 0.2
            return EnvSpec(policy.metadata["env_id"])
        return EnvSpec.from_plain(parse_json(text))
    except ValueError as error:
        raise InputError(f"the policy in {folder} is damaged ({error}); train it again") from None


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names of an actor's tensors, with a letter for each axis."""
    layers = max(1, hidden_layers(tensors))
    found = {f"w{i}": f"{i}{i - 1}" for i in range(1, layers + 1)}
    found |= {f"b{i}": f"{i}" for i in range(1, layers + 1)}
    std = "raw_std" if "w_raw_std" in tensors else "log_std"
    found |= {"w_mu": f"a{layers}", "b_mu": "a", f"w_{std}": f"a{layers}", f"b_{std}": "a"}
    return found | {"action_low": "a", "action_high": "a"}


def _check(tensors: Mapping[str, torch.Tensor]) -> None:
    sizes: dict[str, int] = {}
    shapes = _shapes(tensors)
    for name in sorted(tensors.keys() - shapes.keys()):  # as where a layer between is missing
        raise ValueError(f"{name} is part of no layer")
    for name, letters in shapes.items():
        if name not in tensors:
            raise ValueError(f"{name} is missing")
        tensor = tensors[name]
        if tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} is not all finite float32")
        if tensor.ndim != len(letters):
            raise ValueError(f"{name} has shape {list(tensor.shape)}")
        for letter, size in zip(letters, tensor.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise ValueError(f"{name} has shape {list(tensor.shape)}, which fits no other")
