"""Learning curves that others have published, as csv files: method, seed, real_steps, return."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.learning_curves import Curve

COLUMNS = {"method", "seed", "real_steps", "return"}
Published = Mapping[str, Sequence[Curve]]
"""Curves of the seeds of each method."""


def published_curves(folder: Path | None, env: str) -> Published:
    """Those of FOLDER/TASK.csv, TASK an environment id without its version; none without a file.

    Raises:
        InputError: no such folder, or a file of other columns or without numbers in them.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise InputError(f"--published {folder}: no such folder; name one of TASK.csv files")
    file = folder / f"{env.split('-')[0]}.csv"
    if not file.is_file():
        return {}
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    try:
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                found[row["method"]][row["seed"]][int(row["real_steps"])] = float(row["return"])
    except (KeyError, TypeError, ValueError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"--published: {file} has no curves ({error}); it needs the columns "
            f"{', '.join(sorted(COLUMNS))}"
        ) from None
    return {method: list(seeds.values()) for method, seeds in found.items()}
