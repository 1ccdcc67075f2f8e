"""A report as one HTML page, which needs no other file and no script, and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import yaml
from jinja2 import Environment, StrictUndefined

from mbrl_bilevel.scripts.report_parts import INTERVALS, Section, Table
from mbrl_bilevel.scripts.run_reading import Run


@dataclass(frozen=True)
class Report:
    """All of a report; `incomplete` says of each run what it lacks, `command` how it was made."""

    title: str
    command: str
    sections: Sequence[Section]
    incomplete: Sequence[str]
    runs: Sequence[Run]

    @property
    def tables(self) -> list[Table]:
        return [table for section in self.sections for table in section.tables]


def as_html(report: Report) -> str:
    """The page; every text is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("mbrl_bilevel.scripts").joinpath("report_page.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=report.title,
        command=report.command,
        sections=report.sections,
        incomplete=report.incomplete,
        intervals=INTERVALS,
        runs=[_settings(run) for run in report.runs],
    )


def _settings(run: Run) -> dict[str, str]:
    if run.state == "damaged":
        return {"folder": str(run.folder), "summary": "damaged", "config": "; ".join(run.remarks)}
    command = {"agents": "train-agent", "models": "train-model", "evaluations": "eval-agent"}
    settings = dict(run.config if run.acting is None else run.acting.settings)
    return {
        "folder": str(run.folder),
        "summary": f"{command[run.kind]}, {run.name}, seed {run.seed}, {run.state}",
        "config": yaml.safe_dump(settings, sort_keys=False),
    }


def as_markdown(report: Report) -> str:
    """The tables, a heading for each."""
    lines = [f"# {report.title}", "", f"    {report.command}", "", INTERVALS, ""]
    if report.incomplete:
        lines += [
            "Not finished, or not whole:",
            "",
            *(f"- {_plain(x)}" for x in report.incomplete),
            "",
        ]
    for section in report.sections:
        lines += [f"## {_plain(section.title)}", ""]
        for text in section.text:
            lines += [_plain(text), ""]
        for table in section.tables:
            lines += [f"### {_plain(table.title)}", "", *_rows(table), ""]
            lines += [_plain(table.note), ""] if table.note else []
    return "\n".join(lines)


def _rows(table: Table) -> list[str]:
    under = ["---:" if numeric else "---" for numeric in table.numeric]
    rows = [list(table.columns), under, *table.texts]
    return [f"| {' | '.join(map(_plain, row))} |" for row in rows]


def _plain(text: str) -> str:
    """A text that neither ends a cell nor begins an element."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
