"""What is told of evaluated agents: one as a list, several side by side in a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mbrl_bilevel.agents.episode import Episode
from mbrl_bilevel.evaluation.returns import CONFIDENCE, ReturnSummary, Statistic, difference
from mbrl_bilevel.scripts.candidates import Candidate

FEW = 10  # episodes, below which a bootstrap interval is clearly too narrow


def agent_metrics(
    candidate: Candidate,
    episodes: Mapping[int, Episode],
    env_id: str,
    seed: int,
    scores: tuple[float, float] | None,
) -> dict[str, Any]:
    """The JSON of one agent from its finished episodes, by their number.

    `scores` are the reference scores of such episodes, None where there are none.
    """
    played = [episodes[index] for index in sorted(episodes)]
    summary = ReturnSummary([episode.total_reward for episode in played], scores, seed)
    steps = sum(episode.length for episode in played)
    acting = sum(episode.acting_seconds for episode in played)
    simulating = sum(episode.simulator_seconds for episode in played)
    return {
        "name": candidate.name,
        **summary.metrics(),
        "planning_ms_per_step": 1e3 * acting / steps,
        "simulator_share": simulating / (acting + simulating),
        "episodes": sorted(episodes),
        "lengths": [episode.length for episode in played],
        "terminated": [episode.terminated for episode in played],
        "non_finite_sequences": sum(episode.non_finite_sequences for episode in played),
        "seed": seed,
        "env": env_id,
        "agent": "mpc" if candidate.planner else "policy",
        "planner": candidate.planner,
        "settings": candidate.settings,
        "policy": candidate.policy,
        "model": str(candidate.model) if candidate.model else None,
    }


def difference_to(
    first: Mapping[str, Any], found: Mapping[str, Any], seed: int
) -> dict[str, Any] | None:
    """How much higher the returns of `found` are, over the episodes that both have finished."""
    of_first = dict(zip(first["episodes"], first["returns"], strict=True))
    of_found = dict(zip(found["episodes"], found["returns"], strict=True))
    both = sorted(of_first.keys() & of_found.keys())
    if not both:
        return None
    pairs = [of_first[i] for i in both], [of_found[i] for i in both]
    result: dict[str, Any] = {"to": first["name"], "episodes": len(both)}
    names: tuple[Statistic, ...] = ("mean", "iqm")
    for name in names:
        generator = np.random.default_rng(seed)
        value, interval = difference([pairs[0]], [pairs[1]], name, paired=True, generator=generator)
        result |= {name: value, f"{name}_interval": interval and list(interval)}
    return result


def one_agent(found: Mapping[str, Any]) -> str:
    """A line for every metric."""
    returns, lengths, terminated = found["returns"], found["lengths"], found["terminated"]
    error, score = found["standard_error"], found["normalized_score"]
    spread = "" if error is None else f" ± {error:.1f} (standard error)"
    rows = [
        ("episodes", str(len(returns))),
        ("mean return", f"{found['mean_return']:.1f}{spread}"),
        ("interquartile mean", f"{found['iqm']:.1f}"),
        ("std of returns", f"{found['std_return']:.1f}"),
        ("lowest, highest", f"{min(returns):.1f}, {max(returns):.1f}"),
        (
            "normalised score",
            "none: no reference scores for such episodes" if score is None else f"{score:.1f}",
        ),
        ("episode lengths", f"{_range(lengths)}, {sum(terminated)} terminated"),
        ("acting", f"{found['planning_ms_per_step']:.2f} ms per step"),
        ("simulator's share", f"{found['simulator_share']:.1%} of acting and simulating"),
    ]
    if found["interval"] is not None:
        within = f"{_interval(found['interval'])} (of the mean, bootstrap)"
        rows.insert(2, (f"{CONFIDENCE:.0%} interval", within))
    return "\n".join([*(f"{name:<19} {value}" for name, value in rows), *_remarks([found])])


def side_by_side(agents: Sequence[Mapping[str, Any]]) -> str:
    """A row for every agent; differences are those to the first one."""
    percent = f"{CONFIDENCE:.0%}"
    first = agents[0]["name"]
    head = ["", "episodes", "mean return", percent, "IQM", percent, f"vs {first}", percent]
    head += ["score", "steps", "ended", "ms/step", "simulator"]
    rows = [head, *(_row(found) for found in agents)]
    if all(found["normalized_score"] is None for found in agents):
        rows = [row[:8] + row[9:] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    meaning = (
        f"{percent}: bootstrap intervals; vs {first}: difference of mean returns over episodes "
        "from the same starts; ms/step: of acting; simulator: its share of the time"
    )
    return "\n".join([*lines, meaning, *_remarks(agents)])


def _row(found: Mapping[str, Any]) -> list[str]:
    change, score = found.get("difference"), found["normalized_score"]
    return [
        found["name"],
        str(len(found["returns"])),
        f"{found['mean_return']:.1f}",
        _interval(found["interval"]),
        f"{found['iqm']:.1f}",
        _interval(found["iqm_interval"]),
        f"{change['mean']:+.1f}" if change else "",
        _interval(change["mean_interval"]) if change else "",
        "" if score is None else f"{score:.1f}",
        _range(found["lengths"]),
        str(sum(found["terminated"])),
        f"{found['planning_ms_per_step']:.2f}",
        f"{found['simulator_share']:.1%}",
    ]


def _remarks(agents: Sequence[Mapping[str, Any]]) -> list[str]:
    fewest = min(len(found["returns"]) for found in agents)
    remarks = [
        f"{found['name']}: {found['non_finite_sequences']} imagined sequences were not finite and "
        "were left out"
        for found in agents
        if found["non_finite_sequences"]
    ]
    if 1 < fewest < FEW:
        remarks.append(
            f"intervals from {fewest} episodes are too narrow: use --episodes {FEW} or more"
        )
    return remarks


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"[{interval[0]:.1f}, {interval[1]:.1f}]"


def _range(lengths: Sequence[int]) -> str:
    low, high = min(lengths), max(lengths)
    return str(low) if low == high else f"{low} to {high}"
