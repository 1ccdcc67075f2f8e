"""Evaluations of a policy in the metrics that its training logged."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

EVALUATED, TRAINED = "evaluation/return", "real/return"
"""Mean return of an evaluation; and of the episodes of the training since the last log."""
RATE = "time/steps_per_second"


class LoggedReturn(NamedTuple):
    """The return at a step, and the seconds of training by the clock up to it."""

    step: int
    value: float
    seconds: float


def logged_returns(lines: Iterable[Mapping[str, Any]], key: str) -> list[LoggedReturn]:
    """Those of a run, from the lines of its metrics.jsonl.

    Seconds add up over lines with a rate, so that those before an interruption count too.
    """
    found, seconds, before = [], 0.0, 0
    for line in lines:
        if RATE in line:
            seconds += (line["step"] - before) / line[RATE]
            before = line["step"]
        if key in line:
            found.append(LoggedReturn(line["step"], line[key], seconds))
    return found
