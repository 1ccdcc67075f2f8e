"""Two sets of runs against each other: the probability that a run of one is better."""

from collections.abc import Sequence

import numpy as np

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.inline_svg import inline_svg
from mbrl_bilevel.evaluation.returns import (
    CONFIDENCE,
    Estimate,
    difference,
    probability_of_improvement,
)
from mbrl_bilevel.evaluation.seed_figures import improvement_probabilities
from mbrl_bilevel.scripts.agent_report import RETURNS
from mbrl_bilevel.scripts.evaluation_report import RETURN
from mbrl_bilevel.scripts.model_metrics import sources
from mbrl_bilevel.scripts.report_parts import Cell, Picture, Section, Table, shown
from mbrl_bilevel.scripts.run_groups import Group
from mbrl_bilevel.scripts.run_reading import Kind
from mbrl_bilevel.scripts.seed_tables import Metric

TITLE = "Probability of improvement"
MOST = 36  # rows that are shown unasked


def require_comparable(groups: Sequence[Group]) -> None:
    """Refuses to compare what no single scale measures.

    Raises:
        InputError: agents with models, different tasks, models of different data sets, or a set
            without a finished run.
    """
    compared = [group for against in (False, True) for group in _of_set(groups, against)]
    kinds = sorted({group.kind for group in compared})
    if len(kinds) > 1:
        raise InputError(
            f"the runs to compare are {' and '.join(kinds)}: name runs of train-agent alone, of "
            "train-model alone, or results of eval-agent alone"
        )
    tasks = sorted({group.task for group in groups})
    if len(tasks) > 1:
        raise InputError(
            f"the runs to compare are of different tasks, {', '.join(tasks)}: name runs of one "
            "task, or leave --against out for a section a task"
        )
    data = sorted({str(group.dataset) for group in compared})
    if kinds == ["models"] and len(data) > 1:
        raise InputError(
            f"the models to compare learned from different data sets, {', '.join(data)}, which are "
            "the units of their errors: name models of one data set"
        )
    for against, name in ((False, "RUN"), (True, "--against")):
        if not any(group.finished for group in compared if group.against is against):
            raise InputError(
                f"no run of {name} is finished, so that there is nothing to compare: wait for one, "
                "or leave --against out"
            )


def _of_set(groups: Sequence[Group], against: bool) -> list[Group]:
    """Those of trainings, which may have evaluations below them, or else evaluations."""
    of_set = [group for group in groups if group.against is against]
    return [group for group in of_set if group.kind != "evaluations"] or of_set


def comparison_section(groups: Sequence[Group], seed: int) -> Section:
    """Each group of RUN against each of --against, by every metric of which one is better."""
    runs = [run for group in groups for run in group.runs]
    metrics: dict[Kind, list[Metric]] = {
        "agents": list(RETURNS),
        "models": [metric for source in sources(runs) for metric in source.named],
        "evaluations": [RETURN],
    }
    rows: list[list[Cell]] = []
    for ours in (group for group in groups if not group.against):
        for theirs in (group for group in groups if group.against and group.kind == ours.kind):
            for metric in metrics[ours.kind]:
                rows += _row(metric, ours, theirs, seed)
    columns = ["RUN", "--against", "metric", "seeds", "probability of improvement"]
    note = (
        "The share of pairs of a run of RUN and one of --against in which the former is better, "
        "ties counted half; .5 is no difference. Difference: IQM of RUN minus that of --against. "
        "Seeds are resampled within each group; they are not paired. Without an interval one side "
        "has a single seed, which says nothing about others."
    )
    columns += ["difference of IQM", "better is"]
    table = Table("comparison", "Each group against each", columns, rows, note, len(rows) > MOST)
    return Section(f"{TITLE}: {groups[0].task}", [], [*_picture(rows), table])


def _picture(rows: Sequence[Sequence[Cell]]) -> list[Picture]:
    """All probabilities, where they are few enough for a figure."""
    found = {f"{row[2]}: {row[0]} over {row[1]}": row[4] for row in rows}
    estimates = {name: one for name, one in found.items() if isinstance(one, Estimate)}
    if not 0 < len(estimates) <= MOST:
        return []
    alt = "; ".join(f"{name}: {shown(one)}" for name, one in estimates.items())
    caption = f"{TITLE} with its {CONFIDENCE:.0%} interval; dashed: no difference."
    figure = improvement_probabilities(estimates)
    return [Picture(f"{TITLE}. {alt}", caption, inline_svg(figure, "comparison"))]


def _row(metric: Metric, ours: Group, theirs: Group, seed: int) -> list[list[Cell]]:
    first, second = metric.values(theirs), metric.values(ours)
    if metric.better is None or not first or not second:
        return []
    sign = 1 if metric.better == "larger" else -1
    chance = probability_of_improvement(
        [[sign * v for v in first]],
        [[sign * v for v in second]],
        generator=np.random.default_rng(seed),
    )
    change = difference(
        [first], [second], "iqm", paired=False, generator=np.random.default_rng(seed)
    )
    seeds = f"{len(second)}, {len(first)}"
    return [[ours.name, theirs.name, metric.label, seeds, chance, change, metric.better]]
