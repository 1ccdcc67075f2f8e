"""What a report consists of: sections of sentences, tables and figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbrl_bilevel.evaluation.returns import CONFIDENCE, Estimate
from mbrl_bilevel.scripts.csv_table import write_csv

Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """Rows under named columns; `name` is its csv file's, the first column names the rows."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False
    """Whether the page shows it only where a reader asks for it."""
    printed: bool = False
    """Whether the command prints it too."""

    @property
    def texts(self) -> list[list[str]]:
        """The rows as they are read."""
        return [[shown(cell) for cell in row] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.columns)
        return [bool(c) and not any(isinstance(cell, str) for cell in c) for c in columns]

    def write_csv(self, folder: Path) -> Path:
        """FOLDER/NAME.csv with all digits; an estimate has its interval in two more columns."""
        path = folder / f"{self.name}.csv"
        rows: list[dict[str, Any]] = [{} for _ in self.rows]
        names: list[str] = []
        for place, column in enumerate(self.columns):
            cells = [row[place] for row in self.rows]
            estimated = any(isinstance(cell, Estimate) for cell in cells)
            names += [column, f"{column} low", f"{column} high"] if estimated else [column]
            for row, cell in zip(rows, cells, strict=True):
                if isinstance(cell, Estimate):
                    low, high = cell.interval or (None, None)
                    row |= {column: cell.value, f"{column} low": low, f"{column} high": high}
                else:
                    row[column] = cell
        write_csv(rows, path, names)
        return path


@dataclass(frozen=True)
class Picture:
    """A figure as SVG markup, or as a PNG in base64; `alt` says what it shows."""

    alt: str
    caption: str
    svg: str | None = None
    png: str | None = None


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it."""

    title: str
    text: Sequence[str]
    parts: Sequence[Table | Picture]

    @property
    def tables(self) -> list[Table]:
        return [part for part in self.parts if isinstance(part, Table)]


def shown(cell: Cell) -> str:
    """A cell as it is read; four digits of a number that is no count."""
    if cell is None:
        return ""
    if isinstance(cell, Estimate):
        if cell.interval is None:
            return shown(cell.value)
        return f"{shown(cell.value)} [{shown(cell.interval[0])}, {shown(cell.interval[1])}]"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


INTERVALS = (
    f"In brackets: {CONFIDENCE:.0%} percentile bootstrap interval over seeds; none for one seed. "
    "IQM: interquartile mean over seeds, of up to 3 seeds their mean. Intervals from few seeds are "
    "too narrow: for normal values they hold the true mean in about 73 % of cases for 3 seeds, "
    "85 % for 5, 89 % for 10."
)
