"""Rows as a csv file."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mbrl_bilevel.files import written_by_rename


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path, columns: Sequence[str]) -> None:
    """A csv file of all rows, by rename."""
    with written_by_rename(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
