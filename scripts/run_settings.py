"""What a run is: its task, and the settings in which it differs from others."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gymnasium

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.files import harmless, read_yaml
from mbrl_bilevel.training.run_folder import CONFIG

# What decides nothing of the result but by chance, or is told by other words.
LEFT_OUT = frozenset(
    {
        *("agent", "seed", "threads", "log_every", "unchecked_task"),
        *("env", "environment", "dataset", "fingerprint"),
    }
)


def task_of(config: Mapping[str, Any]) -> str:
    """The environment with its arguments and wrappers, or the data set of one without a name."""
    spec = _spec(config)
    if spec is not None:
        return str(spec)
    if isinstance(config.get("env"), str):
        return printable(config["env"])
    return f"data set {printable(config.get('dataset'))}"


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, without the seed and the task; those of a model given by its folder too.

    Data sets of equal contents are equal, wherever they lie.
    """
    found = {name: value for name, value in config.items() if name not in LEFT_OUT}
    if "agent" not in config:
        del found["objective"]  # the name of the run
    if config.get("dataset") is not None:
        found["dataset"] = dataset_of(config)
    if _spec(config) is not None and "agent" in config:
        found["max_episode_steps"] = time_limit(config)
    if isinstance(found.get("model"), str):
        found |= _of_model(Path(found["model"]))
    return found


def time_limit(config: Mapping[str, Any]) -> int | None:
    """Steps after which episodes are truncated: on record, or those registered for the id."""
    spec = _spec(config)
    if spec is None or spec.max_episode_steps is not None:
        return None if spec is None else spec.max_episode_steps
    registered = gymnasium.registry.get(spec.name)
    return None if registered is None else registered.max_episode_steps


def of_any_seed(datasets: Iterable[tuple[str, int]]) -> dict[str, str]:
    """A name for each data set: one for all of those that every seed has its own of.

    Given are names, with the seed of a run that read it. "reacher/random-3-v0 (aaaabbbb)" of seed 3
    and others like it are "reacher/random-SEED-v0". Those that runs of several seeds read, and one
    without others like it, keep their names.
    """
    seeds: defaultdict[str, set[int]] = defaultdict(set)
    for dataset, seed in datasets:
        seeds[dataset].add(seed)
    own = {dataset: _seedless(dataset, *of) for dataset, of in seeds.items() if len(of) == 1}
    alike = Counter(own.values())
    return {one: own[one] if alike.get(own.get(one, ""), 0) > 1 else one for one in seeds}


def _seedless(dataset: str, seed: int) -> str:
    """SEED in the place of a seed between dashes, underscores or slashes, then no checksum."""
    name, _, _ = dataset.partition(" (")
    found = re.sub(rf"(?<=[-_/]){seed}(?=[-_/]|$)", "SEED", name)
    return dataset if found == name else found


def _of_model(folder: Path) -> dict[str, Any]:
    """Settings of the model that an agent was given; its folder where they cannot be read."""
    try:
        config = read_yaml(folder / CONFIG)
    except (OSError, ValueError):
        return {}
    if not isinstance(config, dict) or "objective" not in config:
        return {}
    settings = settings_of(config) | {"objective": config["objective"]}
    return {"model": None} | {f"model {name}": value for name, value in settings.items()}


def plain_value(value: Any) -> str:
    """A setting as text that can be compared and shown."""
    return printable(value if isinstance(value, str) else json.dumps(value, default=str))


def printable(value: Any) -> str:
    """A text out of a file as it can stand in a figure: short, printable, no formula."""
    text = str(value)
    if harmless(text):
        return text
    return "".join(c if c.isprintable() and c != "$" else "?" for c in text[:200])


def _spec(config: Mapping[str, Any]) -> EnvSpec | None:
    try:
        return EnvSpec.from_plain(config.get("environment"))
    except ValueError:
        return None


def dataset_of(config: Mapping[str, Any]) -> str:
    """Its id or the name of its folder, and a few letters of the checksum of its observations."""
    name = str(config["dataset"])
    name = Path(name).name if Path(name).is_absolute() else name
    fingerprint = config.get("fingerprint")
    if not isinstance(fingerprint, Mapping):
        return str(config["dataset"])
    return f"{name} ({str(fingerprint.get('observations'))[:8]})"
