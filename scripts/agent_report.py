"""The section of a report on agents of one task: returns, learning curves, cost."""

from collections.abc import Sequence

from scipy.integrate import trapezoid

from mbrl_bilevel.evaluation.inline_svg import inline_svg
from mbrl_bilevel.evaluation.learning_curves import Curve, learning_curves, mean_at
from mbrl_bilevel.evaluation.seed_figures import seeds_compared
from mbrl_bilevel.scripts.curve_table import TABLE
from mbrl_bilevel.scripts.logged_evaluations import EVALUATED, TRAINED, logged_returns
from mbrl_bilevel.scripts.published_curves import Published
from mbrl_bilevel.scripts.report_parts import Cell, Picture, Section, Table
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
from mbrl_bilevel.scripts.stored_parameters import model_parameters, policy_parameters


def curve(run: Run) -> Curve:
    """Return by step: of evaluations, or of training episodes where there are none, as of PETS."""
    key = EVALUATED if any(EVALUATED in line for line in run.lines) else TRAINED
    found = ((step, number(value)) for step, value, _ in logged_returns(run.lines, key))
    return {step: value for step, value in found if value is not None}


def final_return(run: Run) -> float | None:
    """The last one of the curve."""
    found = curve(run)
    return found[max(found)] if found else None


def mean_return(run: Run) -> float | None:
    """The mean over the training: the area under the curve by its length, at least two points."""
    found = curve(run)
    steps = sorted(found)
    if len(steps) < 2:
        return None
    return float(trapezoid([found[s] for s in steps], steps) / (steps[-1] - steps[0]))


def seconds(run: Run) -> float | None:
    """Of training by the clock, those before an interruption among them."""
    rates = logged_returns(({**line, TRAINED: 0.0} for line in run.lines), TRAINED)
    return rates[-1].seconds if rates and rates[-1].seconds else None


RETURNS = (
    Metric("final return", final_return, "larger"),
    Metric("mean return over the training", mean_return, "larger"),
)
COST = (
    Metric("steps", lambda run: run.last_step),
    Metric("seconds", seconds),
    Metric("policy parameters", lambda run: policy_parameters(run.folder)),
    Metric("model parameters", lambda run: model_parameters(run.folder)),
)


def agent_section(
    task: str, name: str, groups: Sequence[Group], published: Published, seed: int
) -> Section:
    """Tables and figures of all groups on a task; `name` begins those of their files."""
    curves = curves_by_group(groups, curve)
    parts: list[Table | Picture | None] = [
        settings_table(f"{name}-settings", groups),
        group_table(f"{name}-returns", "Returns, IQM over seeds", groups, RETURNS, seed),
        _final_picture(task, name, groups, seed),
        _curve_picture(task, name, curves, published),
        _curve_table(name, curves, published),
        group_table(f"{name}-cost", "Cost of a run, IQM over seeds", groups, COST, seed),
        run_table(f"{name}-runs", groups, (*RETURNS, COST[1])),
    ]
    text = [
        "The final return is that of a run's last evaluation, undiscounted, the mean over its "
        "episodes; over the training it is the area under the learning curve by its length. Runs "
        "that are not finished are in the learning curves and the last table only."
    ]
    return Section(f"{task}: agents", text, [part for part in parts if part is not None])


def _final_picture(task: str, name: str, groups: Sequence[Group], seed: int) -> Picture | None:
    values = seeds_by_group(RETURNS[0], groups)
    if not values:
        return None
    figure = seeds_compared({"final return": values}, f"{task}, finished runs", seed)
    spoken = "; ".join(f"{k}: {', '.join(f'{v:.0f}' for v in vs)}" for k, vs in values.items())
    return Picture(
        f"Final returns of every seed. {spoken}",
        "Final returns.",
        inline_svg(figure, f"{name}-final"),
    )


def _curve_picture(
    task: str, name: str, curves: dict[str, list[Curve]], published: Published
) -> Picture | None:
    if not curves:
        return None
    figure = learning_curves(curves, f"{task}, return during the training", published)
    behind = f" Behind them published curves of {', '.join(published)}." if published else ""
    return Picture(
        f"Learning curves of {', '.join(curves)}.{behind} The table below holds their numbers.",
        "Learning curves: mean over seeds (thick), lowest and highest seed (shade), every seed "
        f"(thin).{behind}",
        inline_svg(figure, f"{name}-curves"),
    )


def _curve_table(name: str, curves: dict[str, list[Curve]], published: Published) -> Table | None:
    """Means over seeds at the usual steps and at the last, published ones below."""
    if not curves:
        return None
    last = max(step for seeds in curves.values() for one in seeds for step in one)
    steps = [*(step for step in TABLE if step < last), last]
    rows: list[list[Cell]] = [
        [group, len(seeds), *(mean_at(seeds, step) for step in steps)]
        for group, seeds in (*curves.items(), *_called_published(published).items())
    ]
    columns = ["group", "seeds", *(f"at {step:,}" for step in steps)]
    note = "Mean over seeds, interpolated between evaluations; empty where a curve ends before."
    return Table(f"{name}-curves", "Return during the training", columns, rows, note)


def _called_published(published: Published) -> dict[str, Sequence[Curve]]:
    return {f"{method}, published": seeds for method, seeds in published.items()}
