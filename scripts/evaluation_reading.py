"""Results of eval-agent as a report reads them: each agent with the run that it comes from."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mbrl_bilevel.files import read_json, read_yaml
from mbrl_bilevel.scripts.agent_results import SUMMARY
from mbrl_bilevel.scripts.run_reading import Acting, Run, State, is_run, mapping_in, number
from mbrl_bilevel.scripts.run_settings import dataset_of, plain_value, settings_of, time_limit
from mbrl_bilevel.training.run_folder import CONFIG

NUMBERED = re.compile(r"eval-\d{3,}")
# Flags of eval-agent that decide nothing of the returns, or are told by other words.
LEFT_OUT = frozenset(
    {
        *("seed", "device", "json", "plugin", "out", "workers", "threads", "video"),
        *("env", "environment", "model", "policy", "agents", "episodes"),
    }
)


def is_evaluation(folder: Path) -> bool:
    """Whether eval-agent wrote to the folder."""
    return bool(NUMBERED.fullmatch(folder.name)) and (folder / CONFIG).is_file()


def evaluations_in(folder: Path) -> list[Path]:
    """The folders of results directly below a folder, as below a run."""
    return sorted(path for path in folder.glob("eval-*") if is_evaluation(path))


def read_evaluation(folder: Path) -> list[Run]:
    """One for each agent of the folder; nothing that is damaged or missing raises an error."""
    remarks: list[str] = []
    flags = mapping_in(folder / CONFIG, read_yaml, remarks)
    summary = mapping_in(folder / SUMMARY, read_json, remarks)
    if remarks or not flags:
        return [Run(folder, "damaged", remarks=tuple(remarks or [f"{CONFIG} is missing"]))]
    if not summary:
        return [Run(folder, "without results", {"seed": 0}, acting=Acting("agents"))]
    several = summary.get("agents")
    found = several if isinstance(several, list) else [summary]
    return [_read_agent(folder, flags, one, summary.get("complete") is True) for one in found]


def without_copies(runs: Sequence[Run]) -> list[Run]:
    """Leaves out what is there once more, in its model's folder or after an interruption.

    That is the same returns of the same run and settings, and an evaluation that was cut short
    where another of the same is whole.
    """
    kept: dict[Any, list[Run]] = {}
    for run in sorted(runs, key=lambda one: one.state != "finished"):
        if run.acting is None or not run.acting.returns:
            kept[run.folder] = [run]
            continue
        alike = kept.setdefault(_key(run.acting), [])
        again = any(one.acting and one.acting.returns == run.acting.returns for one in alike)
        if not again and not (alike and run.state != "finished"):
            alike.append(run)
    left = [run for some in kept.values() for run in some]
    return [run for run in runs if any(run is one for one in left)]


def _key(acting: Acting) -> tuple[Any, ...]:
    settings = tuple(sorted((name, plain_value(v)) for name, v in acting.settings.items()))
    return acting.name, acting.run and acting.run.resolve(), settings


def _read_agent(folder: Path, flags: Mapping[str, Any], found: Any, complete: bool) -> Run:
    state: State = "finished" if complete else "interrupted"
    try:
        returns = _returns(found)
        seed, model = int(found["seed"]), found["model"]
        own = {name: value for name, value in flags.items() if name not in LEFT_OUT}
        own |= {"planner": found["planner"], **found["settings"], "evaluation seed": seed}
        own |= {"episodes": flags["episodes"], "max_episode_steps": time_limit(flags)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{SUMMARY} is damaged ({type(error).__name__}: {error})"
        return Run(folder, "damaged", remarks=(said,))
    environment = {key: flags[key] for key in ("env", "environment") if key in flags}
    if model is None or model == "simulator":
        name = f"policy {found.get('policy')}" if model is None else "simulator"
        acting = Acting(name, own, seed, returns)
        return Run(folder, state, environment | {"seed": seed}, summary=found, acting=acting)
    trained = _trained(folder, Path(str(model)))
    if trained is None:
        said = f"the run of its model, {model}, is not there or cannot be read"
        return Run(folder, "damaged", remarks=(said,))
    place, config = trained
    acting = _acting(place, config, found.get("agent") == "policy", (own, seed, returns))
    return Run(folder, state, config | environment, summary=found, acting=acting)


def _acting(
    place: Path,
    config: Mapping[str, Any],
    policy: bool,
    played: tuple[dict[str, Any], int, dict[int, float]],
) -> Acting:
    """The model, or the policy, of a run; `played` are settings, seed and returns."""
    own, seed, returns = played
    settings = settings_of(config)
    of_model = settings.pop("model objective", None)
    settings.pop("objective", None)
    objective = of_model or config.get("objective")  # an agent that was given a model fits none
    word, agent = "policy" if policy else "model", config.get("agent")
    own = own | {f"{word} {name}": value for name, value in settings.items()}
    if agent is not None and not policy:
        own["model agent"] = agent
    name = ", ".join(str(part) for part in (agent if policy else None, objective) if part)
    return Acting(
        name=name or f"model of {agent}",
        settings=own,
        seed=seed,
        returns=returns,
        run=place,
        agent=str(agent) if policy else None,
        objective=None if objective is None else str(objective),
        data=None if config.get("dataset") is None else dataset_of(config),
    )


def _returns(found: Mapping[str, Any]) -> dict[int, float]:
    """By number of the episode; ValueError for what is no number."""
    values = [number(value) for value in found["returns"]]
    if not values or None in values:
        raise ValueError("its returns are no numbers")
    pairs = zip(found["episodes"], values, strict=True)
    return {int(episode): float(value) for episode, value in pairs if value is not None}


def _trained(folder: Path, model: Path) -> tuple[Path, dict[str, Any]] | None:
    """The run folder of the model and its configuration, also where all was moved together."""
    here = [folder.parent] if folder.parent.name == model.name else []
    for place in (*here, model, folder.parent.parent / model.name):
        config = mapping_in(place / CONFIG, read_yaml, []) if is_run(place) else {}
        names = config.get("agent", config.get("objective"))
        if isinstance(names, str) and type(config.get("seed")) is int:
            return place, config
    return None
