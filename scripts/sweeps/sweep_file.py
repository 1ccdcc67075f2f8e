"""A sweep's YAML file and `--set`, as mappings in which every value is still text."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import read_yaml

Stage = dict[str, Any]  # of keys to text, lists of text, or mappings


class _Words(yaml.BaseLoader):
    """Values are the words of a command line: `yes`, `0` and `1e-3` are what stands there."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"it has {key} twice in one mapping")
        return super().construct_mapping(node, deep)


def read_stages(file: Path | None, settings: Sequence[str]) -> list[Stage]:
    """The stages of a file, a mapping each, with the keys that `--set` gives.

    Raises:
        InputError: no file that holds mappings, or a setting that is no KEY=VALUE.
    """
    given = dict(_setting(text) for text in settings)
    if file is None:
        if not given:
            raise InputError(
                "name the sweep's YAML file, or give its keys by --set, e.g. --set "
                "command=train-model dataset=hopper/medium-v0 objective=mse,nll seed=0,1"
            )
        return [given]
    stages = _stages(file)
    if given and len(stages) > 1:
        raise InputError(
            f"--set {' '.join(settings)}: {file} holds {len(stages)} stages; change the file"
        )
    return [stage | given for stage in stages]


def _stages(file: Path) -> list[Stage]:
    try:
        found = read_yaml(file, _Words)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{file} is no sweep's file ({reason}): name a YAML file") from None
    stages = found if isinstance(found, list) else [found]
    if not stages or not all(isinstance(stage, dict) and stage for stage in stages):
        raise InputError(
            f"{file} is no sweep's file: it holds no mapping of keys, such as command: train-model"
        )
    return stages


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise InputError(f"--set {text}: give KEY=VALUE, or KEY=VALUE,VALUE for an axis")
    values = value.split(",")
    return key.replace("-", "_"), values if len(values) > 1 else value


def normalised(stage: Mapping[str, Any]) -> Stage:
    """Keys are the names of flags, written with - or _."""
    return {str(key).replace("-", "_"): value for key, value in stage.items()}
