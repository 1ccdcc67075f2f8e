"""The section of a report on dynamics models of one task: errors, calibration, learned U, cost."""

from collections.abc import Callable, Mapping, Sequence

from mbrl_bilevel.evaluation.coverage import INTERVALS
from mbrl_bilevel.evaluation.inline_svg import inline_svg
from mbrl_bilevel.evaluation.learning_curves import Curve, learning_curves
from mbrl_bilevel.evaluation.one_step import LEVELS
from mbrl_bilevel.evaluation.seed_figures import (
    calibration_by_group,
    error_by_steps_ahead,
    seeds_compared,
)
from mbrl_bilevel.scripts.learned_reward_report import learned_reward
from mbrl_bilevel.scripts.model_metrics import Source, by_steps_ahead, horizons, sources
from mbrl_bilevel.scripts.report_parts import Picture, Section, Table
from mbrl_bilevel.scripts.run_groups import Group
from mbrl_bilevel.scripts.run_reading import Run, number
from mbrl_bilevel.scripts.seed_tables import (
    Metric,
    curves_by_group,
    group_table,
    run_table,
    seeds_by_group,
    settings_table,
)

COST = (
    Metric("parameters", lambda run: number(run.summary.get("parameters"))),
    Metric("steps", lambda run: number(run.summary.get("steps"))),
    Metric("seconds", lambda run: number(run.summary.get("seconds"))),
)
HELD_OUT = "held_out/nll"
BASELINES = {"linear model": "k_step_linear", "persistence": "k_step_persistence"}


def model_section(task: str, name: str, groups: Sequence[Group], seed: int) -> Section:
    """Tables and figures of all groups on a task; `name` begins those of their files."""
    evaluated = sources([run for group in groups for run in group.runs])
    parts: list[Table | Picture | None] = [settings_table(f"{name}-settings", groups)]
    for source in evaluated:
        stem, title = f"{name}-{source.name}", f"{source.title}, IQM over seeds"
        parts.append(group_table(stem, title, groups, source.metrics, seed))
        parts.append(_seeds(f"{task}. {source.title}", stem, groups, source, seed))
    named = [metric for source in evaluated for metric in source.named]
    parts += [
        _error_growth(name, groups),
        _coverage(name, groups, seed),
        _calibration(name, groups),
        _training(task, name, groups),
        *learned_reward(name, groups, seed),
        group_table(f"{name}-cost", "Cost of a run, IQM over seeds", groups, COST, seed),
        run_table(f"{name}-runs", groups, (*named, COST[0], COST[-1])),
    ]
    return Section(f"{task}: models", _text(groups), [part for part in parts if part is not None])


def _text(groups: Sequence[Group]) -> list[str]:
    text = [
        "Errors are those of the mixture of members, in standard deviations of the training part "
        "of a run's own data; NLL in nats per dimension."
    ]
    data = {group.dataset for group in groups}
    if len(data) > 1:
        text.append(
            "The runs learned from different data sets, so errors of different groups are in "
            "different units."
        )
    return text


def _seeds(
    title: str, stem: str, groups: Sequence[Group], source: Source, seed: int
) -> Picture | None:
    """Every seed's error and likelihood one step ahead, and the error furthest ahead."""
    there = [one for one in source.metrics if seeds_by_group(one, groups)]
    errors = [one for one in there if one.label in ("RMSE", "MSE")][:1]
    errors += [one for one in there if one.label == "NLL"]
    errors += [one for one in there if one.label.startswith("RMSE after")][-1:]
    if not errors:
        return None
    values = {one.label: seeds_by_group(one, groups) for one in errors}
    return Picture(
        f"{', '.join(values)} of every seed of {', '.join(g.name for g in groups)}. "
        "The table above holds the numbers.",
        f"{source.title}: every seed.",
        inline_svg(seeds_compared(values, title, seed), f"{stem}-seeds"),
    )


def _error_growth(name: str, groups: Sequence[Group]) -> Picture | None:
    """Open-loop error over the steps ahead, beside what eval-model compares it with."""
    runs = [run for group in groups for run in group.finished]
    ahead = {
        g.name: [by_steps_ahead(r.evaluation.get("k_step")) for r in g.finished] for g in groups
    }
    there = {key: [one for one in seeds if one] for key, seeds in ahead.items()}
    there = {key: seeds for key, seeds in there.items() if seeds}
    if not there:
        return None
    references = {label: _mean_baseline(runs, key) for label, key in BASELINES.items()}
    figure = error_by_steps_ahead(there, {k: v for k, v in references.items() if v})
    return Picture(
        f"Open-loop error over the steps ahead of {', '.join(there)}, numbers above.",
        "Open-loop error: each elite follows its own mean, their mean is compared. Grey: what a "
        "linear model and what no change would give, means over runs.",
        inline_svg(figure, f"{name}-growth"),
    )


def _mean_baseline(runs: Sequence[Run], key: str) -> dict[int, float]:
    found = [one for run in runs if (one := by_steps_ahead(run.evaluation.get(key)))]
    steps = sorted(set.intersection(*(set(one) for one in found))) if found else []
    return {k: sum(one[k] for one in found) / len(found) for k in steps}


def _coverage(name: str, groups: Sequence[Group], seed: int) -> Table | None:
    metrics = [
        Metric(f"{100 * level:.0f} % after {k} steps", _inside(f"{100 * level:.0f}", k))
        for level in INTERVALS
        for k in horizons([run for group in groups for run in group.runs])
    ]
    title = "Share of true values inside the central intervals of sampled futures, IQM over seeds"
    return group_table(f"{name}-coverage", title, groups, metrics, seed)


def _inside(level: str, k: int) -> Callable[[Run], float | None]:
    def share(run: Run) -> float | None:
        found = run.evaluation.get("k_step_coverage")
        return by_steps_ahead(found.get(level)).get(k) if isinstance(found, Mapping) else None

    return share


def _calibration(name: str, groups: Sequence[Group]) -> Picture | None:
    shares = {group.name: [s for run in group.finished if (s := _shares(run))] for group in groups}
    there = {key: seeds for key, seeds in shares.items() if seeds}
    if not there:
        return None
    return Picture(
        f"Calibration of {', '.join(there)} one step ahead.",
        "Calibration on the test part of the own data: share of targets below each predicted "
        "quantile, minus the quantile; 0 is perfect.",
        inline_svg(calibration_by_group(there), f"{name}-calibration"),
    )


def _shares(run: Run) -> list[float]:
    """Of targets below each of LEVELS, on the test part; empty where it is not known."""
    test = run.summary.get("test")
    found = test.get("coverage") if isinstance(test, Mapping) else None
    values = [number(v) for v in found] if isinstance(found, list) else []
    whole = [v for v in values if v is not None]
    return whole if len(whole) == len(values) == len(LEVELS) else []


def _training(task: str, name: str, groups: Sequence[Group]) -> Picture | None:
    curves = curves_by_group(groups, _held_out)
    if not curves:
        return None
    figure = learning_curves(curves, f"{task}, during the training", ylabel="held-out NLL")
    return Picture(
        f"Held-out NLL during the training of {', '.join(curves)}.",
        "Held-out NLL per dimension, mean over members: mean over seeds (thick), lowest and "
        "highest seed (shade), every seed (thin).",
        inline_svg(figure, f"{name}-training"),
    )


def _held_out(run: Run) -> Curve:
    found = ((line["step"], number(line.get(HELD_OUT))) for line in run.lines)
    return {step: value for step, value in found if value is not None}
