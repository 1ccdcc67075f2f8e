"""`sanity`: the toy problems of docs/theory.md, every value beside the one the theory expects."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.sanity import figures, suite
from mbrl_bilevel.sanity.check import Check
from mbrl_bilevel.sanity.gaussian import draw
from mbrl_bilevel.sanity.gaussian_curves import curves
from mbrl_bilevel.sanity.over_seeds import Estimate
from mbrl_bilevel.scripts.command import Outcome, resolve_device, say
from mbrl_bilevel.scripts.flag_checks import make_folder
from mbrl_bilevel.scripts.flags.sanity import Config, Name

MISSING = 'scikit-learn is not installed; pip install "mbrl-bilevel[sanity]"'


PARTS: dict[Name, Callable[[int], suite.Part]] = {
    "gaussian": lambda seed: suite.Part(suite.gaussian_suite(_generator(seed)), {}),
    "horizon": lambda seed: suite.Part(suite.horizon_suite(_generator(seed)), {}),
    "visited": lambda seed: suite.Part(suite.visited_suite(_generator(seed)), {}),
    "classification": lambda seed: suite.classification_suite(_generator(seed)),
    "mdp": lambda seed: suite.mdp_suite(seed),
    "two_modes": lambda seed: suite.Part(suite.two_modes_suite(_generator(seed)), {}),
}


def run(config: Config) -> Outcome:
    """Raises InputError for a folder in use, or where scikit-learn is missing and asked for."""
    resolve_device(config.device)
    names, skipped = _choose(config.names)
    if config.out is not None:
        make_folder("--out", config.out, empty=True)
    checks: list[Check] = []
    tables: dict[str, Any] = {}
    texts = []
    for name in names:
        say(f"sanity {name} ...")
        began = time.perf_counter()
        part = PARTS[name](config.seed)
        failed = sum(not c.passed for c in part.checks)
        count = f"{len(part.checks)} checks, {failed} failed"
        say(f"sanity {name}: {count}, {time.perf_counter() - began:.0f} s")
        checks += part.checks
        tables |= part.tables
        texts.append("\n".join([f"{name}: {count}", _rows(part.checks), *_tables(part.tables)]))
    passed = all(c.passed for c in checks)
    found = {
        "checks": [_plain(asdict(c)) for c in checks],
        "passed": passed,
        "tables": _plain(tables),
        "skipped": skipped,
        "seed": config.seed,
    }
    if config.out is not None:
        _write(config.out, found, "gaussian" in names, config.seed)
        texts.append(f"written to {config.out}")
    texts += [f"{name}: skipped, {reason}" for name, reason in skipped.items()]
    texts.append("all passed" if passed else f"{sum(not c.passed for c in checks)} checks FAILED")
    return Outcome(found, "\n\n".join(texts), exit_code=0 if passed else 1)


def _choose(names: tuple[Name, ...]) -> tuple[list[Name], dict[str, str]]:
    """The problems to check and, where all were asked for, those skipped, each with its reason."""
    available = find_spec("sklearn") is not None
    if names and "classification" in names and not available:
        raise InputError(f"classification needs the tables of scikit-learn: {MISSING}")
    chosen = list(dict.fromkeys(names)) or list(PARTS)
    if available or "classification" not in chosen:
        return chosen, {}
    say(f"sanity classification: skipped, {MISSING}")
    return [n for n in chosen if n != "classification"], {"classification": MISSING}


def _write(out: Path, found: dict[str, Any], with_curves: bool, seed: int) -> None:
    (out / "checks.json").write_text(json.dumps(found, indent=2) + "\n")
    if with_curves:
        generator = _generator(seed)
        inner, outer = draw(100, generator), draw(100, generator)
        figure = figures.training_curves(curves(inner, outer))
        figures.save(figure, out / "gaussian_curves.png")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _plain(value: Any) -> Any:
    """Plain JSON, in which an infinite or undefined number is null."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, Estimate):
        return _plain(value._asdict())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(checks: list[Check]) -> str:
    width = max(len(c.name) for c in checks)
    return "\n".join(
        f"  {'pass' if c.passed else 'FAIL'}  {c.name:<{width}}  {c.value:>10.4g}"
        f"  expected {c.expected:.4g} ± {c.tolerance:.2g}"
        for c in checks
    )


def _tables(tables: dict[str, dict[str, dict[str, Estimate]]]) -> list[str]:
    lines = []
    for table, objectives in tables.items():
        names = list(next(iter(objectives.values())))
        lines.append(f"  {table:<28}" + "".join(f"{name:>18}" for name in names))
        lines += [
            f"    {objective:<26}" + "".join(f"{values[name]!s:>18}" for name in names)
            for objective, values in objectives.items()
        ]
    return lines
