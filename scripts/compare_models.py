"""Several evaluated models side by side: table, figures, and what their returns say of them."""

import json
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation import figures, mismatch
from mbrl_bilevel.evaluation.comparison_figures import comparison, mismatch_scatter
from mbrl_bilevel.evaluation.model_evaluation import ModelEvaluation
from mbrl_bilevel.evaluation.model_table import correlation_table, rows, table
from mbrl_bilevel.evaluation.targets import how_many_vary
from mbrl_bilevel.files import write_text
from mbrl_bilevel.scripts.command import Outcome


def compare(
    folders: Sequence[Path],
    evaluated: Sequence[ModelEvaluation],
    found: Sequence[dict[str, Any]],
    remarks: Sequence[str],
    comparable: bool,
    out: Path | None,
    seed: int,
) -> Outcome:
    """Table, figures and comparison.json; the best are marked where models are `comparable`.

    `out` is a new folder, by default the first of comparison-001, ... beside the models.

    Raises:
        InputError: the folder exists or cannot be written, or results of eval-agent are damaged.
    """
    names = _short_names(folders)
    read = [mismatch.read_acted(folder) for folder in folders]
    out = _comparison_folder(out, folders)
    picture = comparison(dict(zip(names, evaluated, strict=True)), comparable)
    figures.save(picture, out / "comparison.png")
    against_returns, text = _mismatch(names, read, out, seed)
    result: dict[str, Any] = {
        "models": list(found),
        "figures": str(out),
        "mismatch": against_returns,
        "remarks": list(remarks),
        "seed": seed,
    }
    write_text(out / "comparison.json", json.dumps(result, indent=2) + "\n")
    units = f"*: best   units: {found[0]['units']}; {how_many_vary(found[0])}"
    marked = [units] if comparable else []
    lines = [table(names, rows(found), mark=comparable), *marked, *remarks, "", text]
    return Outcome(result, "\n".join([*lines, f"figures: {out}, and in each model's folder"]))


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The folders without what all of them begin with."""
    resolved = [folder.resolve() for folder in folders]
    parent = os.path.commonpath([folder.parent for folder in resolved])
    return [os.path.relpath(folder, parent) for folder in resolved]


def _comparison_folder(wanted: Path | None, folders: Sequence[Path]) -> Path:
    parent = Path(os.path.commonpath([folder.resolve().parent for folder in folders]))
    numbered = (parent / f"comparison-{number:03}" for number in count(1))
    for out in numbered if wanted is None else [wanted]:
        try:
            out.mkdir(parents=True)
            return out
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(
                f"the comparison cannot be written to {out} ({error.strerror}): choose another "
                "--out"
            ) from None
    raise InputError(f"--out {wanted} exists and nothing is overwritten; choose another")


def _mismatch(
    names: Sequence[str], read: Sequence[mismatch.Acted | None], out: Path, seed: int
) -> tuple[dict[str, Any] | None, str]:
    """Correlation of the metrics with the returns that eval-agent left beside the models."""
    reason = mismatch.why_not(read)
    if reason is not None:
        return None, f"no objective mismatch: {reason}"
    acted = [one for one in read if one is not None]
    found = mismatch.correlations(acted, np.random.default_rng(seed))
    figures.save(mismatch_scatter(names, acted, found), out / "mismatch.png")
    differ = mismatch.different_settings(acted)
    lines = [
        f"objective mismatch over {len(acted)} models (-1: the metric orders the returns)",
        correlation_table(found),
    ]
    if differ:
        lines.append(f"beware: eval-agent ran with different settings ({', '.join(differ)})")
    return {
        "env": acted[0].env,
        "mean_returns": [float(np.mean(one.returns)) for one in acted],
        "different_settings": differ,
        "correlations": [one.as_json() for one in found],
    }, "\n".join(lines)
