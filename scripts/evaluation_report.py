"""The section of a report on evaluations by eval-agent of one task: returns, paired differences."""

from collections.abc import Sequence

from mbrl_bilevel.evaluation.inline_svg import inline_svg
from mbrl_bilevel.evaluation.seed_figures import seeds_compared
from mbrl_bilevel.scripts.objective_differences import difference_table, differences
from mbrl_bilevel.scripts.report_parts import Cell, Picture, Section, Table
from mbrl_bilevel.scripts.run_groups import Group
from mbrl_bilevel.scripts.run_reading import Run, number
from mbrl_bilevel.scripts.seed_tables import (
    Metric,
    over_seeds,
    run_table,
    seeds_by_group,
    settings_table,
)

RETURN = Metric("return", lambda run: run.acting.mean if run.acting else None, "larger")
OTHERS = (
    Metric("normalised score", lambda run: number(run.summary.get("normalized_score"))),
    Metric("ms a step", lambda run: number(run.summary.get("planning_ms_per_step"))),
)


def episodes(run: Run) -> int:
    """How many the evaluation has finished."""
    return 0 if run.acting is None else len(run.acting.returns)


def evaluation_section(
    task: str,
    name: str,
    groups: Sequence[Group],
    reference: str | None,
    margin: float,
    seed: int,
) -> Section:
    """Tables and a figure of all groups on a task; `name` begins those of their files."""
    found = [] if reference is None else differences(groups, reference)
    parts: list[Table | Picture | None] = [
        settings_table(f"{name}-settings", groups),
        _returns(f"{name}-returns", groups, seed),
        difference_table(f"{name}-differences", found, margin),
        _picture(task, name, groups, seed),
        run_table(f"{name}-runs", groups, (RETURN, Metric("episodes", episodes), *OTHERS)),
    ]
    text = [
        "Returns are undiscounted; that of a run is the mean over the episodes of its evaluation. "
        "The seed is that of the run whose model or policy acts. Evaluations that are not finished "
        "are in the last table only."
    ]
    return Section(f"{task}: evaluations", text, [part for part in parts if part is not None])


def _returns(name: str, groups: Sequence[Group], seed: int) -> Table | None:
    there = [one for one in OTHERS if any(one.values(group) for group in groups)]
    rows: list[list[Cell]] = []
    for group in groups:
        values = RETURN.values(group)
        if values:
            played = sum(map(episodes, group.finished))
            both = [over_seeds(values, seed, "mean"), over_seeds(values, seed)]
            more = [over_seeds(one.values(group), seed, "mean") for one in there]
            rows.append([group.name, len(values), played, *both, *more])
    columns = ["group", "seeds", "episodes", "mean return", "IQM of returns"]
    labels = [f"{one.label}, mean" for one in there]
    if not rows:
        return None
    return Table(name, "Returns over seeds", [*columns, *labels], rows, printed=True)


def _picture(task: str, name: str, groups: Sequence[Group], seed: int) -> Picture | None:
    values = seeds_by_group(RETURN, groups)
    if not values:
        return None
    figure = seeds_compared({"return": values}, f"{task}, evaluations", seed)
    spoken = "; ".join(f"{k}: {', '.join(f'{v:.4g}' for v in vs)}" for k, vs in values.items())
    return Picture(
        f"Mean returns of every seed. {spoken}",
        "Mean return of each seed.",
        inline_svg(figure, f"{name}-seeds"),
    )
