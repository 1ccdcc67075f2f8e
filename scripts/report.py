"""`report`: runs as one page of tables and figures, with intervals over seeds."""

import re
from collections.abc import Sequence
from shlex import join
from typing import Any

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import write_text
from mbrl_bilevel.scripts.agent_report import agent_section
from mbrl_bilevel.scripts.command import Outcome
from mbrl_bilevel.scripts.compared_sets import comparison_section, require_comparable
from mbrl_bilevel.scripts.evaluation_report import episodes, evaluation_section
from mbrl_bilevel.scripts.find_runs import find_runs
from mbrl_bilevel.scripts.flag_checks import make_folder, refuse_twice
from mbrl_bilevel.scripts.flags.report import Config
from mbrl_bilevel.scripts.model_report import model_section
from mbrl_bilevel.scripts.objective_differences import reference_objective
from mbrl_bilevel.scripts.published_curves import Published, published_curves
from mbrl_bilevel.scripts.report_page import Report, as_html, as_markdown
from mbrl_bilevel.scripts.report_parts import Section, Table
from mbrl_bilevel.scripts.run_groups import Group, grouped
from mbrl_bilevel.scripts.run_reading import Run
from mbrl_bilevel.scripts.seed_tables import group_list
from mbrl_bilevel.wording import counted

PAGE, MARKDOWN = "report.html", "report.md"
GROUPS = "A group is of runs that differ in nothing but their seed."


def run(config: Config) -> Outcome:
    """Reads the runs and writes OUT.

    Raises:
        InputError: folders without runs or results, a run that is named twice, runs that cannot be
            compared, a reference that no evaluated model is of, published curves that cannot be
            read, or an --out that is not empty.
    """
    if config.out.exists():
        make_folder("--out", config.out, empty=True)  # refused before anything is read
    ours = find_runs("RUN", config.run)
    theirs = find_runs("--against", config.against) if config.against else []
    refuse_twice("RUN or --against", [run.folder.resolve() for run in [*ours, *theirs]])
    runs = [*ours, *theirs]
    if not any(run.lines or run.summary for run in runs):
        raise InputError(f"none of {counted(len(runs), 'run')} has any results: name others")
    groups = grouped(ours, theirs)
    if theirs:
        require_comparable(groups)
    reference = reference_objective(
        [g for g in groups if g.kind == "evaluations"], config.reference
    )
    published = {task: published_curves(config.published, task) for task in _tasks(groups)}
    sections = _sections(groups, published, reference, config)
    title = f"Runs on {', '.join(_tasks(groups))}"
    report = Report(title, _command(config), sections, _incomplete(runs), runs)
    make_folder("--out", config.out, empty=True)
    tables = [str(table.write_csv(config.out)) for table in report.tables]
    write_text(config.out / MARKDOWN, as_markdown(report))
    write_text(config.out / PAGE, as_html(report))
    found = _results(config, groups, report, tables)
    return Outcome(found, _text(config, groups, report))


def _tasks(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(group.task for group in groups))


def _sections(
    groups: Sequence[Group],
    published: dict[str, Published],
    reference: str | None,
    config: Config,
) -> list[Section]:
    sections = [Section("Groups", [GROUPS], [group_list(groups)])]
    if config.against:
        sections.append(comparison_section(groups, config.seed))
    for task in _tasks(groups):
        of_task = [group for group in groups if group.task == task]
        agents = [group for group in of_task if group.kind == "agents"]
        evaluations = [group for group in of_task if group.kind == "evaluations"]
        models = [group for group in of_task if group.kind == "models"]
        stem = _file_name(task, _tasks(groups))
        if agents:
            name = f"{stem}-agents"
            sections.append(agent_section(task, name, agents, published[task], config.seed))
        if evaluations:
            name, given = f"{stem}-evaluations", (reference, config.margin, config.seed)
            sections.append(evaluation_section(task, name, evaluations, *given))
        if models:
            sections.append(model_section(task, f"{stem}-models", models, config.seed))
    return sections


def _file_name(task: str, tasks: Sequence[str]) -> str:
    """The task in letters and digits; with its number where others would have the same."""
    names = [re.sub(r"[^a-z0-9]+", "-", one.lower())[:40].strip("-") for one in tasks]
    place = tasks.index(task)
    return names[place] if names.count(names[place]) == 1 else f"{names[place]}-{place + 1}"


def _incomplete(runs: Sequence[Run]) -> list[str]:
    """A sentence for each run that is not finished, or of which something could not be read."""
    lines = []
    for run in runs:
        words: list[str] = [] if run.state == "finished" else [run.state]
        if run.state in ("running", "interrupted"):
            played = counted(episodes(run), "episode")
            words.append(f"metrics up to step {run.last_step:,}" if run.acting is None else played)
        words += run.remarks
        if words:
            lines.append(f"{run.folder}: {'; '.join(words)}")
    return lines


def _command(config: Config) -> str:
    words = ["mbrl-bilevel", "report", *map(str, config.run), "--out", str(config.out)]
    if config.against:
        words += ["--against", *map(str, config.against)]
    if config.reference is not None:
        words += ["--reference", config.reference]
    if config.margin != Config.margin:
        words += ["--margin", f"{config.margin:g}"]
    if config.published is not None:
        words += ["--published", str(config.published)]
    return join([*words, "--seed", str(config.seed)] if config.seed else words)


def _results(
    config: Config, groups: Sequence[Group], report: Report, tables: list[str]
) -> dict[str, Any]:
    return {
        "page": str(config.out / PAGE),
        "markdown": str(config.out / MARKDOWN),
        "tables": tables,
        "groups": [
            {
                "name": group.name,
                "kind": group.kind,
                "task": group.task,
                "against": group.against,
                "settings": dict(group.differing),
                "seeds": [run.seed for run in group.runs],
                "runs": [str(run.folder) for run in group.runs],
                "finished": len(group.finished),
            }
            for group in groups
        ],
        "incomplete": list(report.incomplete),
        "seed": config.seed,
    }


def _text(config: Config, groups: Sequence[Group], report: Report) -> str:
    lines = [
        f"{group.task}, {group.kind}, {group.name}: "
        f"{counted(len(group.finished), 'finished run')} of {len(group.runs)}"
        for group in groups
    ]
    for table in report.tables:
        if table.printed:
            lines += ["", f"{table.title}: {table.name}.csv", *_in_columns(table)]
    lines += ["", *report.incomplete] if report.incomplete else [""]
    return "\n".join([*lines, f"page: {config.out / PAGE}"])


def _in_columns(table: Table) -> list[str]:
    """The table as lines of a terminal."""
    rows = [list(table.columns), *table.texts]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.columns))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
