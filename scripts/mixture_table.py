"""The table of `reproduce mixtures`: means over seeds, and differences to one Gaussian."""

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
            | {"minus_gaussian": f"{middle:.3f}", "low": f"{low:.3f}", "high": f"{high:.3f}"}
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


def _spread(name: str, values: Sequence[float], digits: int) -> dict[str, str]:
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return {
        name: f"{mean(values):.{digits}f}",
        f"{name}_standard_error": "" if error is None else f"{error:.{digits}f}",
    }


def table(rows: Rows) -> str:
    """What `summarise` found, as Markdown."""
    found = summarise(rows)
    chosen = heavy(rows)
    columns: dict[str, Callable[[dict[str, str]], str]] = {
        "objective": lambda row: row["objective"],
        "NLL": lambda row: _cell(row, "nll"),
        f"NLL, {len(chosen)} heavy": lambda row: _cell(row, "nll_heavy"),
        "bounded NLL": lambda row: _cell(row, "bounded_nll"),
        "minus gaussian": lambda row: "{minus_gaussian} ({low} to {high})".format(**row),
        "better": lambda row: row["better_nll"],
        "energy score": lambda row: _cell(row, "energy_score"),
        f"energy score, {len(chosen)} heavy": lambda row: _cell(row, "energy_score_heavy"),
        "better energy score": lambda row: row["better_energy_score"],
        "RMSE": lambda row: _cell(row, "rmse"),
        "between": lambda row: _cell(row, "between"),
        "NLL of 3 members": lambda row: _cell(row, "pooled_nll"),
        "seconds": lambda row: row["processor_seconds"],
    }
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell(row) for cell in columns.values()) + " |" for row in found]
    return "\n".join([*lines, "heavy: " + ", ".join(chosen)])


def _cell(row: dict[str, str], name: str) -> str:
    error = row[f"{name}_standard_error"]
    return f"{row[name]} ± {error}" if error else row[name]
