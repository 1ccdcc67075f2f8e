"""The metrics of a command that stand in a sweep's table."""

from collections.abc import Mapping
from typing import Any

# Columns, and where they stand in the JSON of the command.
HEADLINES: dict[str, dict[str, tuple[str, ...]]] = {
    "train-model": {
        "steps_taken": ("steps",),
        "seconds": ("seconds",),
        "parameters": ("parameters",),
        "held_out_nll": ("held_out_nll",),
        "held_out_mse": ("held_out_mse",),
        "test_rmse": ("test", "rmse"),
        "test_nll": ("test", "nll"),
        "test_r2": ("test", "r2"),
        "test_ece": ("test", "ece"),
    },
    "eval-model": {
        "rmse": ("rmse",),
        "nll": ("nll",),
        "r2": ("r2",),
        "ece": ("ece",),
        "sharpness": ("sharpness",),
        **{f"k_step_{k}": ("k_step", str(k)) for k in (1, 10, 50, 100)},
    },
    "train-agent": {
        "steps_taken": ("steps",),
        "seconds": ("seconds",),
        "mean_return": ("mean_return",),
        "std_return": ("std_return",),
    },
    "eval-agent": {
        "seconds": ("seconds",),
        "mean_return": ("mean_return",),
        "std_return": ("std_return",),
        "standard_error": ("standard_error",),
        "iqm": ("iqm",),
        "normalized_score": ("normalized_score",),
        "planning_ms_per_step": ("planning_ms_per_step",),
    },
}
FIRST = {
    "train-model": ("test_nll", "test_rmse"),
    "eval-model": ("nll", "rmse"),
    "train-agent": ("mean_return",),
    "eval-agent": ("mean_return", "standard_error"),
}
# Of a training that runs: the first that a line of metrics.jsonl holds.
LIVE = {
    "train-model": ("held_out/nll",),
    "train-agent": ("evaluation/return", "real/return", "model/held_out_nll"),
}


def headlines(command: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a command's results by column, None where there is none."""
    return {name: _at(results, path) for name, path in HEADLINES[command].items()}


def _at(results: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        results = results.get(key) if isinstance(results, Mapping) else None
    return results


def summary(command: str, results: Mapping[str, Any]) -> str:
    """The first metrics of a finished trial, in one line."""
    found = headlines(command, results)
    shown = {name: found[name] for name in FIRST[command] if found[name] is not None}
    return ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
