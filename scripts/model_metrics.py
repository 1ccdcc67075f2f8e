"""Metrics of trained dynamics models, by the data that they were evaluated on."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mbrl_bilevel.scripts.run_reading import Run, number
from mbrl_bilevel.scripts.run_settings import of_any_seed, printable
from mbrl_bilevel.scripts.seed_tables import Better, Metric

ONE_STEP: Mapping[str, tuple[str, Better]] = {
    "rmse": ("RMSE", "smaller"),
    "mse": ("MSE", "smaller"),
    "nll": ("NLL", "smaller"),
    "r2": ("R²", "larger"),
    "ece": ("calibration error", "smaller"),
}
Part = Callable[[Run], Mapping[str, Any]]
"""What a run holds of one evaluation."""


@dataclass(frozen=True)
class Source:
    """Metrics from one set of data; `name` is short, for files and columns."""

    name: str
    title: str
    metrics: Sequence[Metric]

    @property
    def named(self) -> list[Metric]:
        """The metrics, their labels with the source's name."""
        return [replace(one, label=f"{self.name}: {one.label}") for one in self.metrics]


def sources(runs: Sequence[Run]) -> list[Source]:
    """The test part of train-model, data of eval-model, and those of `reproduce dynamics`."""
    found = [Source("test", "Test part of the own data (train-model)", _one_step(_test))]
    names = of_any_seed((_data(run), run.seed) for run in runs if run.evaluation)
    data = sorted(set(names.values()))
    for place, one in enumerate(data, start=1):
        part = partial(_evaluation_on, {of for of, name in names.items() if name == one})
        name = "eval" if len(data) == 1 else f"eval-{place}"
        ahead = [_ahead(part, k) for k in horizons(runs)]
        found.append(
            Source(name, f"{one[:1].upper()}{one[1:]} (eval-model)", _one_step(part) + ahead)
        )
    title = "A second data set (reproduce dynamics)"
    return [*found, Source("second", title, [*_one_step(_second), *_open_loop(runs)])]


def _one_step(part: Part) -> list[Metric]:
    return [Metric(label, _get(part, key), better) for key, (label, better) in ONE_STEP.items()]


def _get(part: Part, key: str) -> Callable[[Run], float | None]:
    return lambda run: number(part(run).get(key))


def _test(run: Run) -> Mapping[str, Any]:
    found = run.summary.get("test")
    return found if isinstance(found, Mapping) else {}


def _second(run: Run) -> Mapping[str, Any]:
    return run.second


def _evaluation_on(data: Set[str], run: Run) -> Mapping[str, Any]:
    return run.evaluation if run.evaluation and _data(run) in data else {}


def _data(run: Run) -> str:
    return printable(run.evaluation.get("source"))


def _ahead(part: Part, k: int) -> Metric:
    return Metric(
        f"RMSE after {k} steps",
        lambda run: by_steps_ahead(part(run).get("k_step")).get(k),
        "smaller",
    )


def _open_loop(runs: Sequence[Run]) -> list[Metric]:
    """Of `reproduce dynamics`, whose runs tell the steps ahead."""
    return [
        Metric(f"RMSE after {k:g} steps", _get(partial(_with_steps, k), "open_loop"), "smaller")
        for k in sorted(
            {run.second["open_loop_steps"] for run in runs if "open_loop" in run.second}
        )
    ]


def _with_steps(k: float, run: Run) -> Mapping[str, Any]:
    return run.second if run.second.get("open_loop_steps") == k else {}


def horizons(runs: Sequence[Run]) -> list[int]:
    """Steps ahead at which eval-model evaluated some run."""
    return sorted({k for run in runs for k in by_steps_ahead(run.evaluation.get("k_step"))})


def by_steps_ahead(found: Any) -> dict[int, float]:
    """Numbers by steps ahead; empty for what is none."""
    if not isinstance(found, Mapping):
        return {}
    items = ((k, number(v)) for k, v in found.items())
    return {int(k): v for k, v in items if str(k).isdecimal() and v is not None}
