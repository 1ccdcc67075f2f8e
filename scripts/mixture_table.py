"""The table of `reproduce mixtures`: means over seeds, and differences to one Gaussian."""

import math
from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import Any

from mbrl_bilevel.scripts.paired_differences import interval

REFERENCE = "gaussian"
Rows = Sequence[dict[str, Any]]


def heavy(rows: Rows) -> list[str]:
    """The half of the targets, rounded up, whose `gaussian` residuals have the largest kurtosis.

    Excess kurtosis on held-out rows, on average over seeds; largest first.
    """
    of_target: dict[str, list[float]] = {}
    for row in rows:
        if row["objective"] == REFERENCE:
            of_target.setdefault(row["target"], []).append(row["kurtosis"])
    ordered = sorted(of_target, key=lambda name: -mean(of_target[name]))
    return ordered[: (len(ordered) + 1) // 2]


def summarise(rows: Rows) -> list[dict[str, Any]]:
    """A row per objective: mean and standard error over seeds, as text.

    `better_nll`, `better_energy_score`: targets in which it is better than `gaussian` in every
    seed. `minus_gaussian`: its NLL less that of `gaussian`, paired by seed, with a 95 % interval.
    """
    seeds = sorted({row["seed"] for row in rows})
    targets = sorted({row["target"] for row in rows})
    at = {(row["objective"], row["seed"], row["target"]): row for row in rows}
    chosen = heavy(rows)
    table = []
    for objective in dict.fromkeys(row["objective"] for row in rows):

        def over_seeds(
            metric: str, names: Sequence[str] = targets, objective: str = objective
        ) -> list[float]:
            return [mean(at[objective, seed, name][metric] for name in names) for seed in seeds]

        def better(metric: str, objective: str = objective) -> int:
            pairs = [
                [(objective, seed, n), (REFERENCE, seed, n)] for n in targets for seed in seeds
            ]
            worse = {a[2] for a, b in pairs if not at[a][metric] < at[b][metric]}
            return len(targets) - len(worse)

        reference = over_seeds("nll", objective=REFERENCE)
        middle, low, high = interval(
            [a - b for a, b in zip(over_seeds("nll"), reference, strict=True)]
        )
        seconds = [at[objective, seed, targets[0]]["processor_seconds"] for seed in seeds]
        table.append(
            {"objective": objective}
            | _spread("nll", over_seeds("nll"), 3)
            | _spread("nll_heavy", over_seeds("nll", chosen), 3)
            | _spread("bounded_nll", over_seeds("bounded_nll"), 3)
            | {"minus_gaussian": f"{middle:.3f}", "low": _or_empty(low), "high": _or_empty(high)}
            | {"better_nll": str(better("nll"))}
            | _spread("energy_score", over_seeds("energy_score"), 4)
            | _spread("energy_score_heavy", over_seeds("energy_score", chosen), 4)
            | {"better_energy_score": str(better("energy_score"))}
            | _spread("rmse", [v**0.5 for v in over_seeds("mse")], 4)
            | _spread("between", over_seeds("between"), 3)
            | _spread("pooled_nll", over_seeds("pooled_nll"), 3)
            | {"processor_seconds": f"{mean(seconds):.0f}"}
        )
    return table


def by_target(rows: Rows) -> list[dict[str, str]]:
    """A row per target: kurtosis of `gaussian`, then the NLL of every objective, over seeds."""
    chosen = heavy(rows)

    def over_seeds(metric: str, objective: str, target: str) -> float:
        return mean(
            row[metric] for row in rows if row["objective"] == objective and row["target"] == target
        )

    return [
        {
            "target": target,
            "heavy": "yes" if target in chosen else "no",
            "kurtosis": f"{over_seeds('kurtosis', REFERENCE, target):.1f}",
        }
        | {
            objective: f"{over_seeds('nll', objective, target):.3f}"
            for objective in dict.fromkeys(row["objective"] for row in rows)
        }
        for target in dict.fromkeys(row["target"] for row in rows)
    ]


def _spread(name: str, values: Sequence[float], digits: int) -> dict[str, str]:
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return {
        name: f"{mean(values):.{digits}f}",
        f"{name}_standard_error": "" if error is None else f"{error:.{digits}f}",
    }


def table(rows: Rows) -> str:
    """What `summarise` and `by_target` found, as Markdown."""
    found, targets, chosen = summarise(rows), by_target(rows), heavy(rows)
    columns: dict[str, Callable[[dict[str, str]], str]] = {
        "objective": lambda row: row["objective"],
        "NLL": lambda row: _cell(row, "nll"),
        f"NLL, {len(chosen)} heavy": lambda row: _cell(row, "nll_heavy"),
        "bounded NLL": lambda row: _cell(row, "bounded_nll"),
        "minus gaussian": _difference,
        "better": lambda row: row["better_nll"],
        "energy score": lambda row: _cell(row, "energy_score"),
        f"energy score, {len(chosen)} heavy": lambda row: _cell(row, "energy_score_heavy"),
        "better energy score": lambda row: row["better_energy_score"],
        "RMSE": lambda row: _cell(row, "rmse"),
        "between": lambda row: _cell(row, "between"),
        "NLL of 3 members": lambda row: _cell(row, "pooled_nll"),
        "seconds": lambda row: row["processor_seconds"],
    }
    cells = [[cell(row) for cell in columns.values()] for row in found]
    of_targets = _markdown(list(targets[0]), [list(row.values()) for row in targets])
    return _markdown(list(columns), cells) + "\n\nNLL of each target:\n\n" + of_targets


def _markdown(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _or_empty(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _difference(row: dict[str, str]) -> str:
    bounds = f" ({row['low']} to {row['high']})" if row["low"] else ""
    return row["minus_gaussian"] + bounds


def _cell(row: dict[str, str], name: str) -> str:
    error = row[f"{name}_standard_error"]
    return f"{row[name]} ± {error}" if error else row[name]
