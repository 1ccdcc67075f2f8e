"""Objective mismatch: do a model's metrics predict the return of planning in it?

Lambert et al. 2020, "Objective Mismatch in Model-based Reinforcement Learning", section 4: they
correlate the likelihood of a model with the return of MPC in it, and find little.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.json_values import finite_or_null
from mbrl_bilevel.files import read_json, read_yaml
from mbrl_bilevel.wording import counted

METRICS = ("rmse", "nll", "ece", "k_step 10", "k_step 50")  # smaller is better in each
MIN_MODELS = 3
# Flags of eval-agent that change how returns are computed or recorded, and not what they mean.
IRRELEVANT = ("model", "out", "seed", "json", "device", "workers", "threads", "episodes", "video")


@dataclass(frozen=True)
class Acted:
    """A model's metrics beside the returns of planning in it."""

    model: str
    metrics: Mapping[str, float | None]
    returns: Sequence[float]
    env: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Correlation:
    """Of a metric with the mean return over models; -1 where the metric orders them perfectly.

    Intervals hold 95 % of a bootstrap over models and, within each, over its episodes; None where
    too few resamples have a correlation at all.
    """

    metric: str
    models: int
    spearman: float
    spearman_interval: tuple[float, float] | None
    pearson: float
    pearson_interval: tuple[float, float] | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_null(asdict(self))


def read_acted(folder: Path) -> Acted | None:
    """evaluation.json and the newest result of MPC (eval-NNN/summary.json) of a model's folder.

    None where one of them is missing.

    Raises:
        InputError: a file that is damaged.
    """
    by_number = sorted(
        folder.glob("eval-*/summary.json"), key=lambda p: (len(p.parent.name), p.parent.name)
    )
    results = [path for path in reversed(by_number) if _finished_mpc(_json(path))]
    if not results or not (folder / "evaluation.json").is_file():
        return None
    summary, evaluation = _json(results[0]), _json(folder / "evaluation.json")
    try:
        metrics = {name: _metric(evaluation, name) for name in METRICS}
        returns = [float(value) for value in summary["returns"]]
        env = str(summary["env"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{results[0]} or {folder / 'evaluation.json'} is damaged ({type(error).__name__} "
            f"{error}); run eval-agent or eval-model again"
        ) from None
    return Acted(str(folder), metrics, returns, env, _settings(results[0].parent / "config.yaml"))


def _finished_mpc(summary: Mapping[str, Any]) -> bool:
    return summary.get("agent") == "mpc" and summary.get("complete", True)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); delete its folder") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object; delete its folder")
    return found


def _metric(evaluation: Mapping[str, Any], name: str) -> float | None:
    key, _, horizon = name.partition(" ")
    value = evaluation[key].get(horizon) if horizon else evaluation[key]
    return None if value is None else float(value)


def _settings(path: Path) -> dict[str, Any]:
    try:
        config = read_yaml(path)
    except (OSError, ValueError):
        return {}
    if not isinstance(config, dict):
        return {}
    return {k: v for k, v in config.items() if k not in IRRELEVANT}


def why_not(acted: Sequence[Acted | None]) -> str | None:
    """Why these models cannot be correlated, in one sentence; None where they can."""
    there = [one for one in acted if one is not None]
    if len(there) < len(acted):
        missing = len(acted) - len(there)
        return f"{missing} of {counted(len(acted), 'model')} without results of eval-agent"
    if len(there) < MIN_MODELS:
        return f"{counted(len(there), 'model')} cannot be correlated; name {MIN_MODELS} or more"
    envs = sorted({one.env for one in there})
    if len(envs) > 1:
        return f"the models acted in different environments ({', '.join(envs)})"
    return None


def different_settings(acted: Sequence[Acted]) -> list[str]:
    """Names of the planner's settings in which the models' results differ."""
    names = {name for one in acted for name in one.settings}
    return sorted(
        name for name in names if len({repr(one.settings.get(name)) for one in acted}) > 1
    )


def correlations(
    acted: Sequence[Acted], rng: np.random.Generator, resamples: int = 2000
) -> list[Correlation]:
    """Rank and linear correlation of every metric that all models have with their mean return."""
    means = np.array([np.mean(one.returns) for one in acted])
    models = rng.integers(len(acted), size=(resamples, len(acted)))
    drawn = np.stack([_resampled_means(one.returns, rng, resamples) for one in acted], 1)
    drawn_returns = np.take_along_axis(drawn, models, 1)
    found = []
    for name in METRICS:
        values = [one.metrics[name] for one in acted]
        if any(value is None for value in values):
            continue
        x = np.array(values, dtype=float)
        found.append(
            Correlation(
                name,
                len(acted),
                float(pearson(stats.rankdata(x)[None], stats.rankdata(means)[None])[0]),
                _interval(stats.rankdata(x[models], axis=1), stats.rankdata(drawn_returns, axis=1)),
                float(pearson(x[None], means[None])[0]),
                _interval(x[models], drawn_returns),
            )
        )
    return found


def _resampled_means(
    returns: Sequence[float], rng: np.random.Generator, resamples: int
) -> Float[np.ndarray, "r"]:
    return rng.choice(np.array(returns), (resamples, len(returns))).mean(1)


def pearson(x: Float[np.ndarray, "r m"], y: Float[np.ndarray, "r m"]) -> Float[np.ndarray, "r"]:
    """Linear correlation of every row; NaN where one side is constant."""
    flat = (np.ptp(x, axis=1) == 0) | (np.ptp(y, axis=1) == 0)
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    size = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    correlation = np.clip((x * y).sum(1) / np.where(flat, 1.0, size), -1, 1)
    return np.where(flat, np.nan, correlation)


def _interval(
    x: Float[np.ndarray, "r m"], y: Float[np.ndarray, "r m"]
) -> tuple[float, float] | None:
    found = pearson(x, y)
    found = found[np.isfinite(found)]
    if len(found) < len(x) / 2:
        return None
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
