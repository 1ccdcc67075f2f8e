"""Runs that differ in nothing but the seed, as one group; their names say how groups differ."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.run_reading import Kind, Run
from mbrl_bilevel.scripts.run_settings import (
    of_any_seed,
    plain_value,
    printable,
    settings_of,
    task_of,
)

DATASETS = ("dataset", "model dataset", "policy dataset", "policy model dataset")
MOST_NAMED = 3  # settings in the name of a group


@dataclass(frozen=True)
class Group:
    """Runs of one agent, or of models of one objective, on one task with the same settings.

    Or evaluations of such runs, with the same settings of the runs and of the evaluations.
    """

    kind: Kind
    task: str
    name: str
    runs: Sequence[Run]
    settings: Mapping[str, str]
    differing: Mapping[str, str]
    """Settings in which the groups of its agent or objective differ."""
    against: bool = False
    """Whether its runs were named by --against."""

    @cached_property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.state == "finished"]

    @property
    def unfinished(self) -> list[Run]:
        return [run for run in self.runs if run.state != "finished"]

    @property
    def dataset(self) -> str | None:
        """What its models learned from."""
        return self.settings.get("dataset")


def grouped(runs: Sequence[Run], against: Sequence[Run] = ()) -> list[Group]:
    """The groups by kind, task and name; runs without a readable configuration belong to none.

    Raises:
        InputError: two runs of one group with the same seed.
    """
    by_settings: dict[tuple[bool, Kind, str, str, tuple[tuple[str, str], ...]], list[Run]]
    by_settings = defaultdict(list)
    parts = [(False, run) for run in runs] + [(True, run) for run in against]
    known = [(later, run) for later, run in parts if _is_known(run)]
    for (later, run), settings in zip(known, _settings([r for _, r in known]), strict=True):
        key = later, run.kind, task_of(run.config), printable(run.name)
        by_settings[*key, tuple(sorted(settings.items()))].append(run)
    found = []
    for (later, kind, task, name, settings_key), members in by_settings.items():
        alike = [dict(other[4]) for other in by_settings if other[1:4] == (kind, task, name)]
        differing = _differing(dict(settings_key), alike)
        ordered = sorted(members, key=lambda run: run.seed)
        _refuse_equal_seeds(name, task, ordered)
        label = _label(name, differing) + (" (against)" if later else "")
        found.append(Group(kind, task, label, ordered, dict(settings_key), differing, later))
    return _with_own_names(sorted(found, key=lambda one: (one.kind, one.task, one.against)))


def _is_known(run: Run) -> bool:
    """Whether it can be told what the run is."""
    return run.state != "damaged" and (run.acting is None or bool(run.acting.returns))


def _settings(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Those of each run; seeds that have a data set of their own are of one, see `of_any_seed`."""
    found: list[Mapping[str, Any]]
    found = [r.acting.settings if r.acting else settings_of(r.config) for r in runs]
    own = [{key: str(one[key]) for key in DATASETS if one.get(key) is not None} for one in found]
    read = [(name, run.seed) for run, of in zip(runs, own, strict=True) for name in of.values()]
    names = of_any_seed(read)
    texts = []
    for one, of_run in zip(found, own, strict=True):
        settings = dict(one) | {key: names[dataset] for key, dataset in of_run.items()}
        texts.append({key: plain_value(value) for key, value in settings.items()})
    return texts


def _differing(settings: Mapping[str, str], alike: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Values of the settings that are not the same in all."""
    names = sorted({name for one in alike for name in one})
    return {
        name: settings.get(name, "not there")
        for name in names
        if len({one.get(name) for one in alike}) > 1
    }


def _label(name: str, differing: Mapping[str, str]) -> str:
    named = [f"{key} {value}" for key, value in differing.items()]
    more = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    return ", ".join([name, *(part[:60] for part in named[:MOST_NAMED]), *more])


def _with_own_names(groups: Sequence[Group]) -> list[Group]:
    """Numbers those whose names do not tell them apart."""
    counts = Counter((one.kind, one.task, one.name) for one in groups)
    seen: Counter[tuple[str, str, str]] = Counter()
    named = []
    for one in groups:
        key = (one.kind, one.task, one.name)
        seen[key] += 1
        named.append(replace(one, name=f"{one.name} #{seen[key]}") if counts[key] > 1 else one)
    return named


def _refuse_equal_seeds(name: str, task: str, runs: Sequence[Run]) -> None:
    for run, other in pairwise(runs):
        if run.seed == other.seed:
            raise InputError(
                f"seed {run.seed} of {name} on {task} stands in {run.folder} and in "
                f"{other.folder}, with the same settings: it would count twice; name one of them"
            )
